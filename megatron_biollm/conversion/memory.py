"""The cap on a conversion's memory: planned before the first byte, measured at the end."""

import resource
import sys
from dataclasses import dataclass

import psutil
import torch

from megatron_biollm.config import UserError
from megatron_biollm.conversion.names import megatron_shape, weights
from megatron_biollm.model.config import ModelConfig

GB = 10**9
# Of the largest piece: what is read, what it is joined or cast into, and the writer's buffer.
COPIES = 3
# Measured: transformers' and core's modules, imported on the way, 190 MB; the rest is what glibc
# keeps of freed blocks below 32 MB.
LIBRARIES = 300 * 10**6


@dataclass(frozen=True)
class MemoryPlan:
    """What a conversion will hold at most, in bytes.

    baseline: this process, and the libraries it is going to load. convert: copies of the largest
    piece. parity: the weights of one layer and of the vocabulary in fp32, a piece on its way into
    them, and the hidden states of the probe tokens after every layer.
    """

    baseline: int
    convert: int
    parity: int

    @property
    def peak(self) -> int:
        return self.baseline + max(self.convert, self.parity)


def plan_memory(
    sizes: ModelConfig, itemsize: int, probe_tokens: int, max_memory_gb: float
) -> MemoryPlan:
    """Checks that a conversion of this model stays under the cap.

    itemsize: bytes per weight on the larger of the two sides.
    probe_tokens: tokens that the parity check computes.

    Raises:
        UserError: it would not; names the need, the rule and the cap that suffices.
    """
    every = {weight.mapping for weight in weights(1)}
    largest = max(_numel(megatron_shape(mapping, sizes)) for mapping in every)
    layer = sum(_numel(megatron_shape(m, sizes)) for m in every if "*" in m.megatron)
    vocabulary = sizes.padded_vocab_size * sizes.hidden_size
    states = (sizes.num_layers + 8) * sizes.hidden_size + 8 * sizes.ffn_hidden_size
    logits = 4 * sizes.padded_vocab_size
    plan = MemoryPlan(
        baseline=psutil.Process().memory_info().rss + LIBRARIES,
        convert=COPIES * largest * itemsize,
        parity=4 * (layer + vocabulary + probe_tokens * (states + logits)) + 2 * largest * itemsize,
    )
    if plan.peak > max_memory_gb * GB:
        raise UserError(
            f"--max-memory-gb={max_memory_gb:g} is too little: this model needs "
            f"{plan.peak / GB:.2f} GB (the program {plan.baseline / GB:.2f}, {COPIES} copies of "
            f"its largest weight {plan.convert / GB:.2f}, or one layer and the vocabulary in fp32 "
            f"for the parity check {plan.parity / GB:.2f}); give --max-memory-gb "
            f"{int(plan.peak / GB) + 1}"
        )
    return plan


def peak_memory_bytes() -> int:
    """The most memory that this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def check_finite(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Returns `tensor`.

    Raises:
        UserError: it holds NaN or infinity.
    """
    for rows in tensor.split(4096):
        if not torch.isfinite(rows).all():
            raise UserError(
                f"{name} holds NaN or infinity; the weights are damaged or training diverged, "
                f"use another checkpoint"
            )
    return tensor


def _numel(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()
