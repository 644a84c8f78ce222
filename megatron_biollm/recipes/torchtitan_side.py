"""torchtitan's compiled trainer on one GPU as a side of the training benchmark.

It runs in a process of its own (it takes over process group, garbage collection and CUDA graphs),
where `torchtitan_driver` times torchtitan's own `Trainer.train_step` with the same sizes on random
tokens. torchtitan must be importable by this Python (`pip install torchtitan`, or its folder and
those of what it needs in PYTHONPATH).
Its loop keeps fp32 weights, gradients and moments and computes in bf16, its loss is chunked, its
layers are compiled one by one and its forward and backward pass is a CUDA graph, all as shipped;
nothing is recomputed.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.recipes.sides import Outcome, Side

TORCHTITAN = "torchtitan"
STATE = "fp32 weights, gradients and moments; bf16 compute"
KERNELS = "flex attention, torch.compile, CUDA graph, chunked loss, fused AdamW"
# Its first step compiles.
LIMIT_S = 480


def torchtitan_side(model: ModelConfig, rows: int, count: int) -> Side:
    """rows: sequences of a micro-batch. count: micro-batches of a step."""
    request = {"model": asdict(model), "rows": rows, "count": count}
    return Side(TORCHTITAN, state=STATE, elsewhere=partial(_run_apart, request))


def _run_apart(request: dict[str, Any], repeats: int) -> Outcome:
    command = [sys.executable, "-m", "megatron_biollm.recipes.torchtitan_driver"]
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost"}
    # What core wants of the driver slows others down.
    others = {k: v for k, v in os.environ.items() if k != "CUDA_DEVICE_MAX_CONNECTIONS"}
    done = subprocess.run(
        command,
        input=json.dumps(request | {"repeats": repeats}),
        env={**others, **alone, "MASTER_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise UserError(lines[-1] if lines else f"torchtitan ended with status {done.returncode}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Outcome(found["seconds"], found["peak_memory_bytes"], kernels=KERNELS)
