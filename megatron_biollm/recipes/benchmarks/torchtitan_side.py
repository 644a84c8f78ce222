"""torchtitan's compiled trainer on one GPU as a side of the training benchmark.

It runs in a process of its own (it takes over process group, garbage collection and CUDA graphs),
where `torchtitan_driver` times torchtitan's own `Trainer.train_step` with the same sizes on random
tokens. torchtitan must be importable by this Python (`pip install torchtitan`, or its folder and
those of what it needs in PYTHONPATH).
Its loop keeps fp32 weights, gradients and moments and computes in bf16, its loss is chunked, its
layers are compiled one by one and its forward and backward pass is a CUDA graph, all as shipped.
Nothing is recomputed where memory suffices; else what its selective checkpointing chooses.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.recipes.benchmarks.sides import Outcome, Side

TORCHTITAN = "torchtitan"
STATE = "fp32 weights, gradients and moments; bf16 compute"
KERNELS = "flex attention, torch.compile, CUDA graph, chunked loss, fused AdamW"
RECOMPUTED = "selective checkpointing"
# Its first step compiles.
LIMIT_S = 480


def torchtitan_side(model: ModelConfig, rows: int, count: int) -> Side:
    """rows: sequences of a micro-batch. count: micro-batches of a step."""
    request = {"model": asdict(model), "rows": rows, "count": count}
    return Side(TORCHTITAN, state=STATE, elsewhere=partial(_run_apart, request))


def _run_apart(request: dict[str, Any], repeats: int) -> Outcome:
    """Times steps in a fresh process.

    Raises:
        UserError: with torchtitan's own reason.
    """
    for recompute in (False, True):
        done = _driven(request | {"repeats": repeats, "recompute": recompute})
        if done.returncode == 0:
            found = json.loads(done.stdout.splitlines()[-1])
            kernels = f"{KERNELS}, {RECOMPUTED}" if recompute else KERNELS
            return Outcome(found["seconds"], found["peak_memory_bytes"], kernels=kernels)
        if "OutOfMemoryError" not in done.stderr:
            break
    raise UserError(failure(done.stderr) or f"torchtitan ended with status {done.returncode}")


def _driven(request: dict[str, Any]) -> subprocess.CompletedProcess:
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost"}
    # What core wants of the driver slows others down.
    others = {k: v for k, v in os.environ.items() if k != "CUDA_DEVICE_MAX_CONNECTIONS"}
    return subprocess.run(
        [sys.executable, "-m", "megatron_biollm.recipes.benchmarks.torchtitan_driver"],
        input=json.dumps(request),
        env={**others, **alone, "MASTER_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def failure(stderr: str) -> str:
    """The last line that names an error, else the last of all; without the rank's name."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    named = [line for line in lines if re.search(r"\b\w+(Error|Exception)\b: ", line)]
    return re.sub(r"^\[rank\d+\]:\s*", "", (named or lines or [""])[-1])
