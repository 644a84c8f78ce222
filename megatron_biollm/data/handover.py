"""How worker processes hand micro-batches over: in memory that was shared before they began.

A batch of tensors would take a file of shared memory, an open descriptor and a connection for each
tensor, which takes several times as long as reading the samples. Here a worker stacks the samples
in its place of one block, and sends a few bytes to say so.
"""

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Arrays = dict[str, np.ndarray]
_ALIGNED, _MOST_BYTES = 64, 1 << 26


@dataclass
class Filled:
    """A micro-batch in a slot: of each field its offset in it, dtype and shape.

    arrays: the fields themselves, where they did not fit.
    """

    slot: int
    fields: dict[str, tuple[int, str, tuple[int, ...]]]
    arrays: Arrays


class Slots:
    """A block of memory that all processes forked from this one share.

    Batch k lies in slot k modulo their number. There is one slot more than batches that are asked
    for and not yet taken, since a loader asks for the next one before it gives one away.

    batch: one of them, for its size. ahead: batches that may be filled and not yet taken, or as
    many as fit into 64 MiB; each worker has one or more, `of_worker`.
    """

    def __init__(self, batch: Arrays, num_workers: int, ahead: int):
        self.size = max(_ALIGNED, sum(_aligned(array.nbytes) for array in batch.values()))
        fitting = _MOST_BYTES // self.size // num_workers
        self.of_worker = max(1, min(fitting, max(2, -(-ahead // num_workers))))
        self.count = self.of_worker * num_workers + 1
        # Not a file in /dev/shm, of which containers have little.
        self._map = mmap.mmap(-1, self.count * self.size)

    def fill(self, number: int, samples: list[dict[str, Any]]) -> Filled:
        """Stacks the samples of batch `number` in its slot."""
        slot, offset = number % self.count, 0
        filled = Filled(slot, {}, {})
        for name in samples[0]:
            rows = [np.asarray(sample[name]) for sample in samples]
            shape, dtype = (len(rows), *rows[0].shape), rows[0].dtype
            end = offset + rows[0].nbytes * len(rows)
            if end > self.size:
                filled.arrays[name] = np.stack(rows)
                continue
            np.stack(rows, out=self._array(slot, offset, dtype, shape))
            filled.fields[name] = (offset, dtype.str, shape)
            offset = _aligned(end)
        return filled

    def take(self, filled: Filled, pinned: bool) -> dict[str, torch.Tensor]:
        """Copies a batch out; pinned: into page-locked memory."""
        views = {
            name: self._array(filled.slot, offset, np.dtype(dtype), shape)
            for name, (offset, dtype, shape) in filled.fields.items()
        }
        if pinned:
            return tensors(views | filled.arrays, pinned)
        return tensors({name: array.copy() for name, array in views.items()} | filled.arrays, False)

    def _array(self, slot: int, offset: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        start = slot * self.size + offset
        return np.ndarray(shape, dtype, self._map, start)


def collated(samples: list[dict[str, Any]]) -> Arrays:
    """Samples stacked field by field."""
    return {name: np.stack([np.asarray(one[name]) for one in samples]) for name in samples[0]}


def tensors(arrays: Arrays, pinned: bool) -> dict[str, torch.Tensor]:
    """pinned: copied to page-locked memory, which a GPU reads by itself."""
    found = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return {name: tensor.pin_memory() for name, tensor in found.items()} if pinned else found


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
