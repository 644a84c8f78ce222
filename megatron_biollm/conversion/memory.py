"""The cap on a conversion's memory: planned before the first byte, measured at the end."""

import multiprocessing
import os
import re
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from megatron_biollm.config import UserError
from megatron_biollm.conversion.blocks import BLOCK_BYTES
from megatron_biollm.conversion.streamed import PARITY_BLOCK_BYTES
from megatron_biollm.model.config import ModelConfig

GB = 10**9
# Of a block: its scratch, a cast copy of it, and a strip of a chunk on its way.
COPIES = 3
# Measured: transformers' and core's modules, imported on the way, 190 MB; the rest is what glibc
# keeps of freed blocks below 32 MB.
LIBRARIES = 300 * 10**6
# Measured: a worker process with torch, before its first block.
WORKER = 300 * 10**6


@dataclass(frozen=True)
class MemoryPlan:
    """What a conversion will hold at most, in bytes.

    baseline: this process, and the libraries it is going to load. convert: the blocks on their way
    in all processes, and the processes beside this one. parity: blocks of weights in fp32, and the
    hidden states of the probe tokens after every layer, of both sides.
    """

    baseline: int
    convert: int
    parity: int

    @property
    def peak(self) -> int:
        return self.baseline + self.convert + self.parity


@dataclass(frozen=True)
class Held:
    """The most memory a process has held so far, in bytes."""

    pid: int
    peak: int


def plan_memory(
    sizes: ModelConfig, probe_tokens: int, max_memory_gb: float, workers: int = 1
) -> MemoryPlan:
    """Checks that a conversion of this model stays under the cap, whatever its size.

    probe_tokens: tokens that the parity check computes.
    workers: processes that convert; threads of the parity check, which has one for each side.

    Raises:
        UserError: it would not; names the need, the rule and the remedy.
    """
    states = (sizes.num_layers + 8) * sizes.hidden_size + 8 * sizes.ffn_hidden_size
    logits = 4 * sizes.padded_vocab_size
    beside = 0 if workers == 1 else workers * WORKER
    plan = MemoryPlan(
        baseline=psutil.Process().memory_info().rss + LIBRARIES,
        convert=workers * COPIES * BLOCK_BYTES + beside,
        # A block is held as stored and in fp32; of a block of columns, a strip too.
        parity=8 * probe_tokens * (states + logits) + (workers + 1) * 4 * PARITY_BLOCK_BYTES,
    )
    if plan.peak > max_memory_gb * GB:
        fewer = " or fewer --workers" if workers > 1 else ""
        raise UserError(
            f"--max-memory-gb={max_memory_gb:g} is too little: this conversion with {workers} "
            f"process{'es' if workers > 1 else ''} needs {plan.peak / GB:.2f} GB (the program "
            f"{plan.baseline / GB:.2f}, blocks of weights and processes {plan.convert / GB:.2f}, "
            f"the parity check {plan.parity / GB:.2f}); give --max-memory-gb "
            f"{int(plan.peak * 10 / GB + 1) / 10:g}{fewer}"
        )
    return plan


def held() -> Held:
    """What this process has held; the pages of mapped files count."""
    # getrusage would give a started process the peak of the one that started it.
    status = Path("/proc/self/status")
    if status.is_file():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii"))
        return Held(os.getpid(), int(found[1]) * 1024)
    unit = 1 if sys.platform == "darwin" else 1024
    return Held(os.getpid(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def own_process_is_single_threaded() -> None:
    """In a worker process: torch shares the machine with the other workers."""
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)
