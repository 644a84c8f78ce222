"""Thousands of layouts in a few lines: the best of their kind, and why the others are out."""

import re
from collections.abc import Iterable

from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.planner.describe import degrees, recomputation
from megatron_biollm.planner.search import Layout, Refused, Search

OPTIMIZER = {"optimizer": "sharded", "none": "whole", "full": "sharded"}
# Names in one line before the rest is counted.
NAMED = 6

Shape = tuple[int, int]


def best_of_each(found: Search) -> list[Layout]:
    """The fastest layout of each TP x PP: context parallelism, schedule, micro-batch size,
    recomputation and sharding chosen."""
    best: dict[Shape, Layout] = {}
    for layout in found.fitting:
        best.setdefault(shape(layout.candidate.parallel), layout)
    return list(best.values())


def refusals(found: Search) -> list[tuple[str, str]]:
    """Names of the TP x PP of which nothing fits, and the reason: of the layout nearest to fitting,
    the nearest first, or the rule that they break, told once with the first one's numbers."""
    fitting = {shape(layout.candidate.parallel) for layout in found.fitting}
    nearest = _nearest(layout for layout in found.too_large)
    open_shapes = {one: layout for one, layout in nearest.items() if one not in fitting}
    entries = [
        (name(one), f"even with {variant(layout)}, {layout.refusal}")
        for one, layout in sorted(open_shapes.items(), key=lambda item: item[1].peak.total)
    ]
    broken = _by_rule(found.refused, fitting | open_shapes.keys())
    return entries + [(_joined(shapes), reason) for reason, shapes in broken]


def shape(parallel: ParallelConfig) -> Shape:
    """TP and PP."""
    return parallel.tensor_model_parallel_size, parallel.pipeline_model_parallel_size


def name(one: Shape) -> str:
    """`TP8 x PP4`."""
    return f"TP{one[0]} x PP{one[1]}"


def variant(layout: Layout) -> str:
    """What a layout has besides TP and PP, in words."""
    candidate, known = layout.candidate, degrees(layout.candidate.parallel)
    parts = [f"{key.upper()}{known[key]}" for key in ("cp", "vpp") if known[key] > 1]
    parts += [
        f"micro-batches of {candidate.micro_batch_size}",
        f"recompute {recomputation(candidate.parallel)}",
        f"the optimizer {OPTIMIZER[candidate.sharding]}",
    ]
    return ", ".join(parts)


def _nearest(layouts: Iterable[Layout]) -> dict[Shape, Layout]:
    """The layout of each shape that needs least memory, without context parallelism if there is
    one: it shares out activations alone, for as many GPUs."""
    nearest: dict[Shape, Layout] = {}
    for layout in layouts:
        one = shape(layout.candidate.parallel)
        if one not in nearest or _need(layout) < _need(nearest[one]):
            nearest[one] = layout
    return nearest


def _need(layout: Layout) -> tuple[bool, float]:
    return layout.candidate.parallel.context_parallel_size > 1, layout.peak.total


def _by_rule(refused: list[Refused], known: set[Shape]) -> list[tuple[str, list[Shape]]]:
    """The first rule that each shape breaks, by the words of its message."""
    first: dict[Shape, str] = {}
    for one in refused:
        first.setdefault(shape(one.parallel), one.reason)
    rules: dict[str, tuple[str, list[Shape]]] = {}
    for one, reason in first.items():
        if one not in known:
            words = re.sub(r"\d+", "", reason)
            rules.setdefault(words, (reason, []))[1].append(one)
    return list(rules.values())


def _joined(shapes: list[Shape]) -> str:
    names = [name(one) for one in shapes[:NAMED]]
    if len(shapes) > NAMED:
        names.append(f"{len(shapes) - NAMED} more")
    return ", ".join(names)
