"""What must hold across ranks, and how a broken rule is told."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from megatron_biollm.parallel.layout import ParallelConfig

if TYPE_CHECKING:
    from megatron_biollm.rehearsal.rank import RankReport


@dataclass(frozen=True)
class Broken:
    """A rule that one rank breaks.

    Attributes:
        rank: global.
        found: what it does.
        rule: that this breaks.
        remedy: what to change.
    """

    rank: int
    found: str
    rule: str
    remedy: str

    def describe(self, coordinates: dict[str, int]) -> str:
        """One message with the rank's place in the layout."""
        return (
            f"{describe_rank(self.rank, coordinates)}: {self.found}. Rule: {self.rule}. "
            f"Remedy: {self.remedy}"
        )

    def row(self, coordinates: dict[str, int]) -> dict:
        """For JSON."""
        return {
            "rank": self.rank,
            "coordinates": coordinates,
            "found": self.found,
            "rule": self.rule,
            "remedy": self.remedy,
        }


def describe_rank(rank: int, coordinates: dict[str, int]) -> str:
    """`rank 37 (tp5 cp0 dp0 pp1)`."""
    return f"rank {rank} ({' '.join(f'{name}{at}' for name, at in coordinates.items())})"


def coordinates_of(parallel: ParallelConfig, world_size: int, rank: int) -> dict[str, int]:
    """A rank's place in core's order, tensor parallelism innermost, pipeline outermost."""
    place = {}
    for name, size in _sizes(parallel, world_size).items():
        place[name] = rank % size
        rank //= size
    return place


def check_members(
    report: "RankReport", parallel: ParallelConfig, world_size: int
) -> Iterator[Broken]:
    """A group of a kind holds the ranks that differ in that coordinate alone."""
    sizes, stride = _sizes(parallel, world_size), 1
    for name, size in sizes.items():
        first = report.rank - report.coordinates[name] * stride
        expected = [first + index * stride for index in range(size)]
        if report.members[name] != expected:
            yield Broken(
                report.rank,
                f"its {name} group is {report.members[name]}",
                f"ranks that differ in {name} alone, here {expected}, share a {name} group",
                "check the degrees and the version of megatron-core (its order of ranks)",
            )
        stride *= size


def check_shapes(
    shapes: dict[int, str], parallel: ParallelConfig, world_size: int
) -> Iterator[Broken]:
    """Ranks of one pipeline rank hold tensors of the same shapes, so that one stands for all.

    Args:
        shapes: digest of what each rank of the world holds.
        parallel: the degrees.
        world_size: ranks in all.
    """
    first: dict[int, int] = {}
    for rank in sorted(shapes):
        stage = coordinates_of(parallel, world_size, rank)["pp"]
        example = first.setdefault(stage, rank)
        if shapes[rank] != shapes[example]:
            yield Broken(
                rank,
                f"its parameters or gradients have other shapes than those of rank {example}",
                "ranks of one pipeline rank hold tensors of the same shapes",
                "choose a TP that divides heads, KV heads, FFN width and padded vocabulary",
            )


def check_order(reports: list["RankReport"]) -> Iterator[Broken]:
    """All members of a group issue the same collectives of the same sizes in the same order."""
    groups = {(name, tuple(ranks)) for report in reports for name, ranks in report.members.items()}
    for name, ranks in sorted(groups):
        present = [report for report in reports if report.rank in ranks]
        present = [report for report in present if report.members.get(name) == list(ranks)]
        for other in present[1:]:
            yield from _first_difference(name, present[0], other)


def check_pipeline(reports: list["RankReport"]) -> Iterator[Broken]:
    """What a pipeline rank sends, its neighbour receives: as often, in order, of that size."""
    by_rank = {report.rank: report for report in reports}
    for report in reports:
        for other in report.members["pp"]:
            if other in by_rank and other != report.rank:
                yield from _unmatched(report, by_rank[other])


def check_memory(
    report: "RankReport", outside: float, available: float, gpu: str
) -> Iterator[Broken]:
    """The peak fits the GPU with what torch does not see.

    Args:
        report: of a rank.
        outside: bytes of communication buffers, CUDA's context and fragmentation, by the planner.
        available: bytes of the GPU that programs can use.
        gpu: its name.
    """
    needed = report.peak.total + outside
    if needed > available:
        yield Broken(
            report.rank,
            f"it needs {needed / 2**30:.1f} GiB at its peak ({report.peak.total / 2**30:.1f} of "
            f"tensors in a {report.peak.when} pass, {outside / 2**30:.1f} beside them)",
            f"a rank fits the {available / 2**30:.1f} GiB that {gpu} leaves to programs",
            "raise TP or PP, set parallel.recompute_granularity=full, "
            "use_distributed_optimizer=true, or lower training.micro_batch_size",
        )


def _sizes(parallel: ParallelConfig, world_size: int) -> dict[str, int]:
    return {
        "tp": parallel.tensor_model_parallel_size,
        "cp": parallel.context_parallel_size,
        "dp": parallel.data_parallel_size(world_size),
        "pp": parallel.pipeline_model_parallel_size,
    }


def _first_difference(name: str, one: "RankReport", other: "RankReport") -> Iterator[Broken]:
    mine, theirs = (
        [(c.operation, c.bytes) for c in report.calls if c.group == name and c.peer is None]
        for report in (one, other)
    )
    if mine == theirs:
        return
    at = next(
        (i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b),
        min(len(mine), len(theirs)),
    )
    yield Broken(
        other.rank,
        f"collective {at + 1} of its {name} group is {_call(theirs, at)}, but rank {one.rank} of "
        f"the same group issues {_call(mine, at)}",
        "all ranks of a group issue the same collectives in the same order, or they hang",
        "make what the two ranks do depend on nothing but what their group shares",
    )


def _unmatched(report: "RankReport", receiver: "RankReport") -> Iterator[Broken]:
    sent = _passed(report, "send", receiver.rank)
    taken = _passed(receiver, "recv", report.rank)
    if sent == taken:
        return
    at = next((i for i, (a, b) in enumerate(zip(sent, taken, strict=False)) if a != b), None)
    found = (
        f"it sends {len(sent)} tensors to rank {receiver.rank}, which receives {len(taken)}"
        if at is None
        else f"tensor {at + 1} to rank {receiver.rank} has {sent[at]:,} bytes, and {taken[at]:,} "
        f"are received"
    )
    yield Broken(
        report.rank,
        found,
        "what a pipeline rank sends, its neighbour receives",
        "give all ranks the same sequence length, micro-batch size and number of micro-batches",
    )


def _passed(report: "RankReport", operation: str, peer: int) -> list[int]:
    return [c.bytes for c in report.calls if (c.operation, c.peer) == (operation, peer)]


def _call(calls: list[tuple[str, int]], at: int) -> str:
    return f"{calls[at][0]} of {calls[at][1]:,} bytes" if at < len(calls) else "none"
