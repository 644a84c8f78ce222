"""Two models on the same documents: differences, p-values, and what stands in the way."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.results import ModelResults, Result
from megatron_biollm.evaluation.statistics import (
    Difference,
    McNemar,
    mcnemar_of,
    paired_bootstrap,
)


@dataclass(frozen=True)
class Comparison:
    """A benchmark under two models.

    Attributes:
        difference: None where `obstacle` says why there is none.
        mcnemar: None where the score is no share of right answers.
        p_holm: the p-value of the difference, corrected for the number of benchmarks compared
            between the same two models (Holm 1979).
    """

    benchmark: str
    title: str
    first: str
    second: str
    headline: str
    difference: Difference | None = None
    mcnemar: McNemar | None = None
    p_holm: float | None = None
    obstacle: str = ""


def compare(models: Sequence[ModelResults]) -> list[Comparison]:
    """Every later model against the first one, on every benchmark that both were scored on."""
    made: list[Comparison] = []
    for other in models[1:]:
        pairs = [(one, other.get(one.benchmark)) for one in models[0].results]
        made += with_holm([_compare(models[0], other, a, b) for a, b in pairs if b is not None])
    return made


def with_holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons with p-values that hold for all of them together (Holm 1979)."""
    order = sorted(
        (i for i, one in enumerate(comparisons) if one.difference is not None),
        key=lambda i: comparisons[i].difference.p,
    )
    made, so_far = list(comparisons), 0.0
    for rank, i in enumerate(order):
        so_far = max(so_far, min(1.0, (len(order) - rank) * comparisons[i].difference.p))
        made[i] = replace(comparisons[i], p_holm=so_far)
    return made


def _compare(first: ModelResults, second: ModelResults, a: Result, b: Result) -> Comparison:
    bare = Comparison(a.benchmark, a.title, first.model, second.model, a.headline)
    one, two = first.tallies.get(a.benchmark), second.tallies.get(a.benchmark)
    if obstacle := _obstacle(a, b) or ("" if one and two else "no counts were kept"):
        return replace(bare, obstacle=obstacle)
    try:
        difference = paired_bootstrap(one, two)
    except UserError:
        return replace(bare, obstacle="no document in common")
    return replace(bare, difference=difference, mcnemar=mcnemar_of(one, two))


def _obstacle(a: Result, b: Result) -> str:
    """What makes two scores incomparable: the same name, another question."""
    if a.split != b.split:
        return f"splits differ: {a.split}, {b.split}"
    names = [
        n
        for n in {**a.conventions, **b.conventions}
        if a.conventions.get(n) != b.conventions.get(n)
    ]
    if names:
        return f"conventions differ: {', '.join(names)}"
    return f"scores differ: {a.headline}, {b.headline}" if a.headline != b.headline else ""
