"""Micro-batches from a stream, at the place that the count of consumed samples gives."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from megatron_biollm.config import UserError
from megatron_biollm.data.handover import Filled, Slots, collated, tensors


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
        read = (collated([samples[i] for i in place]) for place in places)
        return (tensors(batch, pinned) for batch in read)
    loader, slots = _loader(samples, places, num_workers, ahead)
    return (slots.take(filled, pinned) for filled in iter(loader))


def _loader(
    samples: "_NumberedSamples", places: "_Places", num_workers: int, ahead: int
) -> tuple[DataLoader, Slots]:
    """A loader of what worker processes have filled, and where it lies."""
    slots = Slots(collated([samples[places.first]] * places.size), num_workers, ahead)
    loader = DataLoader(
        samples,
        batch_sampler=places,
        num_workers=num_workers,
        collate_fn=_Fill(slots, places),
        prefetch_factor=slots.of_worker,
        # The slots are inherited; and without a generator of its own the loader draws from
        # torch's global random state.
        multiprocessing_context="fork",
        generator=torch.Generator(),
    )
    return loader, slots


@dataclass
class _Fill:
    """Puts a worker's samples where the run finds them."""

    slots: Slots
    places: "_Places"

    def __call__(self, samples: list[dict[str, Any]]) -> Filled:
        number = (int(samples[0]["sample_index"]) - self.places.first) // self.places.stride
        return self.slots.fill(number, samples)


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
