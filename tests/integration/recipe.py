"""Whole pretraining runs on a small corpus, on the worker processes or under torchrun."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.data.conftest import spelled_out

ROOT = Path(__file__).parents[2]
VOCABULARY = 400
# 400 pads to 480, which no rule that knows the tensor-parallel size would give.
MODEL = {
    "num_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 8,
    "num_query_groups": 4,
    "ffn_hidden_size": 128,
    "seq_length": 64,
    "make_vocab_size_divisible_by": 96,
    "init_method_std": 0.1,
}


def write_inputs(folder: Path) -> list[str]:
    """A corpus and its tokenizer; gives the overrides of a run that uses them."""
    random = np.random.default_rng(0)
    walks = [np.cumsum(random.integers(1, 4, random.integers(40, 200))) for _ in range(200)]
    documents = [[(3 + walk % 390).tolist()] for walk in walks]
    ids, index = spelled_out(documents)
    (folder / "corpus.bin").write_bytes(ids)
    (folder / "corpus.idx").write_bytes(index)
    _write_tokenizer(folder / "tokenizer")
    return [
        f"data.data_path=[{folder / 'corpus'}]",
        f"tokenizer.tokenizer_model={folder / 'tokenizer'}",
        "data.split='100,0,0'",
        "data.num_workers=0",
        "optimizer.lr=5e-3",
        "optimizer.lr_warmup_iters=3",
        "training.micro_batch_size=2",
        "training.global_batch_size=16",
        "training.device=cpu",
        "logging.tensorboard=false",
        *(f"model.{name}={value}" for name, value in MODEL.items()),
    ]


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "<s>", "</s>", *(f"w{i}" for i in range(VOCABULARY - 3))]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)


def layout(**degrees: Any) -> list[str]:
    """Overrides for short names: tp, pp, vpp, cp, sp."""
    names = {
        "tp": "tensor_model_parallel_size",
        "pp": "pipeline_model_parallel_size",
        "vpp": "virtual_pipeline_model_parallel_size",
        "cp": "context_parallel_size",
        "sp": "sequence_parallel",
    }
    return [f"parallel.{names[short]}={value}" for short, value in degrees.items()]


def pretrain_here(overrides: list[str]) -> int:
    """Runs the recipe as this rank of the world; gives the step it has come to."""
    from megatron_biollm.recipes.pretrain import pretrain
    from megatron_biollm.recipes.run_config import load_run_config

    return pretrain(load_run_config(None, overrides)).step


def torchrun(
    processes: int, script: Path, overrides: list[str], max_restarts: int = 0, **environment: str
):
    """Runs a script on real processes, without torchrun where it is one."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
        command += [str(processes), "--max-restarts", str(max_restarts)]
    return subprocess.run(
        [*command, str(script), *overrides],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def rows(run_dir: Path) -> dict[int, dict[str, Any]]:
    """The metrics of a run by step."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert len({row["step"] for row in found}) == len(found), "a step appears twice"
    return {row["step"]: row for row in found}


def trained(run_dir: Path, first: int = 1) -> dict[int, tuple[float, float, str]]:
    """What training did from step `first` on: loss, gradient norm and the batch's hash."""
    return {
        step: (row["loss"], row["grad_norm"], row["batch_hash"])
        for step, row in rows(run_dir).items()
        if step >= first
    }


def log_of(run_dir: Path, rank: int = 0) -> str:
    """Everything a rank has said."""
    return (run_dir / "logs" / f"rank_{rank:05d}.log").read_text()
