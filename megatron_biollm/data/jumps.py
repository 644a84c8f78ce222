"""Samples that a run leaves out of its stream, and where in the stream its samples then lie.

A position numbers the samples of the stream itself. The samples that a run consumes are counted
without those it jumps over, so its count goes on as if they were not there. Ranges are half-open,
[first, end).
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the configuration of a run imports this file, and torch takes a second
    import torch

Ranges = list[list[int]]


def merge_ranges(ranges: Iterable[Sequence[int]]) -> Ranges:
    """The same positions as sorted ranges that neither overlap nor touch."""
    merged: Ranges = []
    for first, end in sorted(map(tuple, ranges)):
        if first >= end:
            continue
        if merged and first <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([first, end])
    return merged


def position_of(consumed: int, jumped: Ranges) -> int:
    """Where the sample that a run consumes after `consumed` others lies in the stream.

    jumped: as `merge_ranges` gives them.
    """
    position = consumed
    for first, end in jumped:
        if position < first:
            break
        position += end - first
    return position


def positions_of(consumed: int, count: int, jumped: Ranges) -> Ranges:
    """The positions of the `count` samples after the first `consumed` ones."""
    found, left = [], count
    while left:
        first = position_of(consumed, jumped)
        ahead = [start for start, _ in jumped if start > first]
        taken = min(left, ahead[0] - first) if ahead else left
        found.append([first, first + taken])
        consumed, left = consumed + taken, left - taken
    return merge_ranges(found)


class JumpingStream:
    """A stream without some of its samples: `stream[i]` is the i-th that a run consumes.

    stream: a `SampleStream`. jumped: positions to leave out.
    """

    def __init__(self, stream: Any, jumped: Iterable[Sequence[int]]):
        self.stream, self.jumped = stream, merge_ranges(jumped)

    def __getitem__(self, index: int) -> "dict[str, torch.Tensor]":
        return self.stream[position_of(index, self.jumped)]
