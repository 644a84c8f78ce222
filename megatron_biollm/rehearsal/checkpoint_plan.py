"""What every rank would write into a checkpoint, and whether the parts make a whole."""

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.exchange_utils import distribute_shards_to_ranks
from megatron.core.dist_checkpointing.mapping import (
    ShardedObject,
    ShardedTensor,
    apply_factories,
    is_main_replica,
)

from megatron_biollm.rehearsal.rules import Broken


class Shard(NamedTuple):
    """A box of a tensor of the checkpoint, as one rank describes it.

    Attributes:
        key: name of the whole tensor.
        shape: of the whole tensor.
        offset: where the box begins.
        size: of the box.
        main: this rank's copy is the one that is written; the others are equal.
        bytes: of the box.
    """

    key: str
    shape: tuple[int, ...]
    offset: tuple[int, ...]
    size: tuple[int, ...]
    main: bool
    bytes: int


def shards_of(content: dict[str, Any]) -> list[Shard]:
    """Everything that a rank's content shards, as core would write it."""
    apply_factories(content)
    return [
        _shard(item)
        for item in nested_values(content)
        if isinstance(item, (ShardedTensor, ShardedObject))
    ]


def check_whole(shards: dict[int, list[Shard]]) -> list[Broken]:
    """Checks that the boxes of all ranks fill every tensor, each element written once.

    Args:
        shards: of every rank of the world.

    Returns:
        What is wrong, with the ranks that it concerns; nothing if all is well.
    """
    by_key: dict[str, list[tuple[int, Shard]]] = defaultdict(list)
    for rank, own in shards.items():
        for shard in own:
            by_key[shard.key].append((rank, shard))
    found = []
    for key, holders in by_key.items():
        problem = _shapes(key, holders) or _outside(key, holders) or _cover(key, holders)
        if problem is not None:
            found.append(problem)
    return found


def bytes_written(
    shards: dict[int, list[Shard]], groups: list[list[int]], shared: bool
) -> dict[int, int]:
    """Bytes of tensors that each rank writes.

    Args:
        shards: of every rank.
        groups: data-parallel groups (with context parallelism), as global ranks.
        shared: equal copies are shared out over the group (checkpoint.fully_parallel_save), by
            core's own rule.
    """
    written = dict.fromkeys(shards, 0)
    for group in groups:
        if not shared or len(group) == 1:
            for rank in group:
                written[rank] += sum(shard.bytes for shard in shards[rank] if shard.main)
            continue
        for rank, size in _shared_out(shards, group):
            written[rank] += size
    return written


def _shared_out(shards: dict[int, list[Shard]], group: list[int]) -> Iterator[tuple[int, int]]:
    holders: dict[tuple, list[int]] = defaultdict(list)
    sizes, wanted = {}, set()
    for index, rank in enumerate(group):
        for shard in shards[rank]:
            name = (shard.key, shard.offset)
            holders[name].append(index)
            sizes[name] = shard.bytes
            if shard.main:
                wanted.add(name)
    held = {name: ranks for name, ranks in holders.items() if name in wanted}
    for name, index in distribute_shards_to_ranks(held, sizes, len(group), set()).items():
        yield group[index], sizes[name]


def _shard(item: ShardedTensor | ShardedObject) -> Shard:
    main = is_main_replica(item.replica_id)
    if isinstance(item, ShardedObject):
        ones = (1,) * len(item.global_shape)
        return Shard(item.key, tuple(item.global_shape), tuple(item.global_offset), ones, main, 0)
    # Axes in front of the data: the index of the layer, of which the box holds one.
    size = (1,) * item.prepend_axis_num + tuple(item.local_shape)
    size = size[-len(item.global_shape) :]
    elements = math.prod(size)
    return Shard(
        item.key,
        tuple(item.global_shape),
        tuple(item.global_offset),
        size,
        main,
        elements * item.dtype.itemsize,
    )


def _shapes(key: str, holders: list[tuple[int, Shard]]) -> Broken | None:
    first_rank, first = holders[0]
    for rank, shard in holders:
        if shard.shape != first.shape:
            return Broken(
                rank,
                f"{key} is a tensor of shape {list(shard.shape)} here and of {list(first.shape)} "
                f"on rank {first_rank}",
                "ranks agree on the shape of every tensor of a checkpoint",
                "pad the vocabulary the same on all ranks (model.make_vocab_size_divisible_by)",
            )
    return None


def _outside(key: str, holders: list[tuple[int, Shard]]) -> Broken | None:
    for rank, shard in holders:
        ends = [start + size for start, size in zip(shard.offset, shard.size, strict=True)]
        if min(shard.offset, default=0) < 0 or any(
            end > length for end, length in zip(ends, shard.shape, strict=True)
        ):
            return Broken(
                rank,
                f"its part of {key} is {_place(shard)}, outside of {list(shard.shape)}",
                "a part lies within its tensor",
                "choose a tensor-parallel size that divides heads, FFN width and vocabulary",
            )
    return None


def _cover(key: str, holders: list[tuple[int, Shard]]) -> Broken | None:
    written = [(rank, shard) for rank, shard in holders if shard.main]
    if (pair := _overlap(written)) is not None:
        (rank, shard), (other, second) = pair
        return Broken(
            rank,
            f"it writes {_place(shard)} of {key}, and rank {other} writes {_place(second)}",
            "every element of a checkpoint is written by one rank alone",
            "one of the two has a wrong offset, or should mark its part as a copy (replica_id)",
        )
    shape = holders[0][1].shape
    missing = math.prod(shape) - sum(math.prod(shard.size) for _, shard in written)
    if missing == 0:
        return None
    at = _first_hole(shape, [shard for _, shard in written])
    # Copies of the hole, else the nearest to it in order: the rank that should write it.
    copies = [rank for rank, shard in holders if not shard.main and _contains(shard, at)]
    rank = copies[0] if copies else _before(holders, at)
    held = f"ranks {copies} hold it as a copy" if copies else "no rank holds it"
    return Broken(
        rank,
        f"{missing:,} elements of {key} {list(shape)} are written by no rank, the first at "
        f"{list(at)}; {held}",
        "the parts of all ranks fill every tensor of a checkpoint",
        "one rank of those that hold it must mark its part as the one to write (replica_id 0)"
        if copies
        else "its part is too small or at a wrong offset: compare it with its neighbours'",
    )


def _overlap(
    written: list[tuple[int, Shard]],
) -> tuple[tuple[int, Shard], tuple[int, Shard]] | None:
    for group in _near(written):
        starts = numpy.array([shard.offset for _, shard in group], dtype=numpy.int64)
        ends = starts + numpy.array([shard.size for _, shard in group], dtype=numpy.int64)
        meet = (starts[:, None] < ends[None]) & (starts[None] < ends[:, None])
        pairs = numpy.argwhere(numpy.triu(meet.all(-1), k=1))
        if len(pairs):
            return group[pairs[0][0]], group[pairs[0][1]]
    return None


def _near(written: list[tuple[int, Shard]]) -> Iterator[list[tuple[int, Shard]]]:
    """Cuts boxes into groups that share no index of the first axis (the layer, mostly)."""
    group, end = [], 0
    for rank, shard in sorted(written, key=lambda item: item[1].offset[:1]):
        if group and shard.offset and shard.offset[0] >= end:
            yield group
            group = []
        group.append((rank, shard))
        end = max(end, shard.offset[0] + shard.size[0]) if shard.offset else 0
    if group:
        yield group


def _first_hole(shape: tuple[int, ...], boxes: list[Shard]) -> tuple[int, ...]:
    """The first element, in order, that no box holds; there is one."""
    if not boxes:
        return (0,) * len(shape)
    edges = [
        numpy.unique([0, *(b.offset[a] for b in boxes), *(b.offset[a] + b.size[a] for b in boxes)])
        for a in range(len(shape))
    ]
    edges = [axis[axis < length] for axis, length in zip(edges, shape, strict=True)]
    filled = numpy.zeros([len(axis) for axis in edges], dtype=bool)
    for box in boxes:
        spans = zip(edges, box.offset, box.size, strict=True)
        cut = (slice(*numpy.searchsorted(axis, (low, low + size))) for axis, low, size in spans)
        filled[tuple(cut)] = True
    hole = numpy.argwhere(~filled)[0]
    return tuple(int(axis[index]) for axis, index in zip(edges, hole, strict=True))


def _contains(shard: Shard, at: tuple[int, ...]) -> bool:
    spans = zip(shard.offset, shard.size, at, strict=True)
    return all(low <= index < low + size for low, size, index in spans)


def _before(holders: list[tuple[int, Shard]], at: tuple[int, ...]) -> int:
    earlier = [(shard.offset, rank) for rank, shard in holders if shard.offset <= at]
    return max(earlier)[1] if earlier else holders[0][0]


def _place(shard: Shard) -> str:
    spans = zip(shard.offset, shard.size, strict=True)
    return "[" + ", ".join(f"{low}:{low + size}" for low, size in spans) + "]"
