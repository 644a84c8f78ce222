"""Micro-batches from a stream, at the place that the count of consumed samples gives."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from megatron_biollm.config import UserError


def micro_batches(
    stream: Any,
    consumed_samples: int,
    micro_batch_size: int,
    data_parallel_rank: int,
    data_parallel_size: int,
    num_workers: int = 0,
    ahead: int = 2,
    pinned: bool = False,
) -> Iterator[dict[str, torch.Tensor]]:
    """Endless micro-batches of one data-parallel rank.

    Micro-batch k of rank r holds the global samples consumed_samples + k * mbs * dp + r * mbs and
    the mbs - 1 after it, as in Megatron-LM. All ranks together thus read the samples in order,
    whatever their number, and `consumed_samples` alone says where to go on.

    stream: `stream[i]` gives sample i as a dict of tensors. num_workers: processes that read
    ahead; the batches are the same for any number. ahead: micro-batches that they have ready
    between them, or more; a step that takes several at once should find all of them. pinned: in
    page-locked memory, from which a GPU copies while the CPU goes on. torch's random state is not
    touched.

    Yields:
        The stream's tensors stacked to [mbs, ...], and sample_index: int64 [mbs].
    """
    _check(consumed_samples, micro_batch_size, data_parallel_rank, data_parallel_size)
    first = consumed_samples + data_parallel_rank * micro_batch_size
    places = _Places(first, micro_batch_size, micro_batch_size * data_parallel_size)
    samples = _NumberedSamples(stream)
    if num_workers == 0:
        read = (_Collated([samples[i] for i in place]) for place in places)
        return (batch.pin_memory() if pinned else batch.tensors() for batch in read)
    loader = DataLoader(
        samples,
        batch_sampler=places,
        num_workers=num_workers,
        collate_fn=_Collated,
        prefetch_factor=max(2, -(-ahead // num_workers)),
        pin_memory=pinned,
        # Without one of its own the loader draws from torch's global random state.
        generator=torch.Generator(),
    )
    return iter(loader) if pinned else (batch.tensors() for batch in iter(loader))


class _Collated:
    """A micro-batch as NumPy arrays, which travel from a worker process through its pipe.

    Tensors would take shared memory, of which containers have little, and an open file each.
    """

    def __init__(self, samples: list[dict[str, Any]]):
        batch = default_collate(samples)
        self.arrays = {name: value.numpy() for name, value in batch.items()}

    def __getstate__(self) -> dict[str, Any]:
        """Half as long: token ids and positions fit into 32 bits."""
        kinds = {name: array.dtype for name, array in self.arrays.items()}
        return {"kinds": kinds, "arrays": {n: _narrow(array) for n, array in self.arrays.items()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        arrays, kinds = state["arrays"], state["kinds"]
        self.arrays = {n: array.astype(kinds[n], copy=False) for n, array in arrays.items()}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(array) for name, array in self.arrays.items()}

    def pin_memory(self) -> dict[str, torch.Tensor]:
        """By this name the loader's thread finds it."""
        return {name: tensor.pin_memory() for name, tensor in self.tensors().items()}


def _narrow(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.int64 or not array.size:
        return array
    limits = np.iinfo(np.int32)
    fits = limits.min <= array.min() and array.max() <= limits.max
    return array.astype(np.int32) if fits else array


class _Places:
    """The global sample indices of each micro-batch."""

    def __init__(self, first: int, size: int, stride: int):
        self.first, self.size, self.stride = first, size, stride

    def __iter__(self) -> Iterator[list[int]]:
        for start in itertools.count(self.first, self.stride):
            yield list(range(start, start + self.size))


class _NumberedSamples(Dataset):
    """Samples with their global index beside the tensors."""

    def __init__(self, stream: Any):
        self.stream = stream

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.stream[index], "sample_index": index}


def _check(consumed_samples: int, micro_batch_size: int, rank: int, size: int) -> None:
    if consumed_samples < 0:
        raise UserError(f"consumed_samples is {consumed_samples}; it counts samples: 0 or more")
    if micro_batch_size < 1:
        raise UserError(
            f"training.micro_batch_size is {micro_batch_size}; it counts samples: give 1 or more"
        )
    if not 0 <= rank < size:
        raise UserError(
            f"data-parallel rank {rank} is not among {size} ranks; ranks are numbered from 0"
        )
