"""Micro-batches from a stream, at the place that the count of consumed samples gives."""

import itertools
from collections.abc import Iterator
from typing import Any

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
) -> Iterator[dict[str, torch.Tensor]]:
    """Endless micro-batches of one data-parallel rank.

    Micro-batch k of rank r holds the global samples consumed_samples + k * mbs * dp + r * mbs and
    the mbs - 1 after it, as in Megatron-LM. All ranks together thus read the samples in order,
    whatever their number, and `consumed_samples` alone says where to go on.

    stream: `stream[i]` gives sample i as a dict of tensors. num_workers: processes that read
    ahead; the batches are the same for any number. torch's random state is not touched.

    Yields:
        The stream's tensors stacked to [mbs, ...], and sample_index: int64 [mbs].
    """
    _check(consumed_samples, micro_batch_size, data_parallel_rank, data_parallel_size)
    first = consumed_samples + data_parallel_rank * micro_batch_size
    places = _Places(first, micro_batch_size, micro_batch_size * data_parallel_size)
    samples = _NumberedSamples(stream)
    if num_workers == 0:
        return (default_collate([samples[i] for i in place]) for place in places)
    loader = DataLoader(
        samples,
        batch_sampler=places,
        num_workers=num_workers,
        # Without one of its own the loader draws from torch's global random state.
        generator=torch.Generator(),
    )
    return iter(loader)


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
