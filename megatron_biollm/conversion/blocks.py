"""The unit of a conversion: some rows of one core weight, whichever way they go.

A block is read, checked and written in one go, in memory that is used again for the next one: a
fresh allocation of that size would cost more than the reading. Blocks share nothing, so any number
of processes may work on them in any order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from megatron_biollm.config import UserError
from megatron_biollm.conversion.names import Weight, megatron_shape, part_shapes, weights
from megatron_biollm.model.config import ModelConfig

BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Block:
    """Rows `start` to `stop` of a core weight."""

    weight: Weight
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Segment:
    """Rows that lie together on both sides.

    core_row, rows: place in the block. part, part_row: the same rows in the Hugging Face weight
    `weight.parts[part]`.
    """

    core_row: int
    rows: int
    part: int
    part_row: int


def blocks(
    sizes: ModelConfig, itemsize: int, padded: bool, limit: int = BLOCK_BYTES
) -> list[Block]:
    """All weights of a model in the order of computation, none above `limit` bytes.

    padded: with the rows that fill the padded vocabulary.
    """
    found = []
    for weight in weights(sizes.num_layers):
        shape = megatron_shape(weight.mapping, sizes)
        rows = shape[0] if padded else sum(s[0] for s in part_shapes(weight.mapping, sizes))
        step = max(1, limit // (itemsize * torch.Size(shape[1:]).numel()))
        found += [Block(weight, a, min(a + step, rows)) for a in range(0, rows, step)]
    return found


def whole_weights(every: Sequence[Block]) -> list[int]:
    """For each number of blocks done, from none to all of them: how many weights are then whole."""
    counts = [0]
    for block, following in zip(every, [*every[1:], None], strict=True):
        ends = following is None or following.weight != block.weight
        counts.append(counts[-1] + ends)
    return counts


def weight_bytes(sizes: ModelConfig, itemsize: int, padded: bool) -> int:
    """Bytes of all weights of a model; `padded` as for `blocks`."""
    return itemsize * sum(
        block.rows * torch.Size(megatron_shape(block.weight.mapping, sizes)[1:]).numel()
        for block in blocks(sizes, itemsize, padded)
    )


def segments(block: Block, sizes: ModelConfig) -> Iterator[Segment]:
    """The parts of a block in the order of its rows; rows of the padding belong to none."""
    for core_row, rows, part, part_row in _whole(block.weight, sizes):
        first, last = max(core_row, block.start), min(core_row + rows, block.stop)
        if first < last:
            yield Segment(first - block.start, last - first, part, part_row + first - core_row)


class Scratch:
    """Memory for one tensor at a time: each `take` gives the same bytes again."""

    def __init__(self):
        self._memory = bytearray()

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A contiguous tensor of unspecified values, which the next `take` overwrites."""
        count = torch.Size(shape).numel()
        if len(self._memory) < count * dtype.itemsize:
            self._memory = bytearray(count * dtype.itemsize)
        # A storage of its own and of no more than these values: torch.save writes all of it.
        return torch.frombuffer(self._memory, dtype=dtype, count=count).view(shape)


def check_finite(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Returns `tensor`.

    Raises:
        UserError: it holds NaN or infinity.
    """
    for rows in tensor.view(len(tensor), -1).split(256):
        # A sum shows either at ten times the speed, but may itself be too large for fp32.
        if not torch.isfinite(rows.sum(dtype=torch.float32)) and not torch.isfinite(rows).all():
            raise UserError(
                f"{name} holds NaN or infinity; the weights are damaged or training diverged, "
                f"use another checkpoint"
            )
    return tensor


def _whole(weight: Weight, sizes: ModelConfig) -> Iterator[tuple[int, int, int, int]]:
    """Core row, rows, part and its row, of the whole weight."""
    rows = [shape[0] for shape in part_shapes(weight.mapping, sizes)]
    groups = sizes.num_query_groups if weight.mapping.by_group else 1
    core_row = 0
    for group in range(groups):
        for part, count in enumerate(rows):
            yield core_row, count // groups, part, group * (count // groups)
            core_row += count // groups
