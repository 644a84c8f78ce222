"""The tables of a report, the same for the page and for Markdown."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from megatron_biollm.evaluation.comparison import Comparison
from megatron_biollm.evaluation.published import Published
from megatron_biollm.evaluation.results import Contamination, ModelResults, Part, Result
from megatron_biollm.evaluation.statistics import Interval, Spread

TASKS = {
    "qa": "Question answering",
    "ner": "Named entities",
    "re": "Relations",
    "extra": "Further benchmarks",
}
NOTHING = "–"
# Scores that are no shares, so that percent would mislead.
_NUMBERS = ("mse", "mae", "perplexity", "loss", "bits")


@dataclass(frozen=True)
class Cell:
    """One cell: its text, what stands small below it, and whether it is to be noticed."""

    text: str
    under: str = ""
    loud: bool = False


@dataclass(frozen=True)
class Table:
    """A table; the first `names` columns hold words, the others numbers."""

    title: str
    columns: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    names: int = 1


def score_tables(models: Sequence[ModelResults], published: Sequence[Published]) -> Iterator[Table]:
    """For each kind of task its benchmarks as columns; chance, our models and others as rows."""
    sources = source_numbers(published)
    for task, title in TASKS.items():
        found = {o.benchmark: o for model in models for o in model.results if o.task == task}
        if not found:
            continue
        rows = [*_guessers(found), *(_ours(model, found) for model in models)]
        rows += _others(found, published, sources)
        columns = (
            Cell("model"),
            *(Cell(one.title, _words(one.headline)) for one in found.values()),
        )
        yield Table(title, columns, tuple(rows))


def source_numbers(published: Iterable[Published]) -> dict[tuple[str, str], int]:
    """Number of each source (name and address), in order of appearance."""
    known = dict.fromkeys((one.source, one.url) for one in published)
    return {source: number for number, source in enumerate(known, 1)}


def detail_table(models: Sequence[ModelResults]) -> Table:
    """How every score was got: split, conventions, method, counts, unreadable answers."""
    rows = [_detail(model, one) for model in models for one in model.results]
    columns = (
        "benchmark",
        "model",
        "how",
        "conventions",
        "items",
        "documents",
        "unreadable",
        "scores",
    )
    return Table("How each score was got", tuple(map(Cell, columns)), tuple(rows), names=4)


def part_tables(models: Sequence[ModelResults]) -> Iterator[Table]:
    """For each benchmark with types or subjects, these by model."""
    for first in _each_benchmark(models):
        have = [(m, one) for m in models if (one := m.get(first.benchmark)) and one.parts]
        if not have:
            continue
        names = dict.fromkeys(name for _, one in have for name in one.parts)
        rows = tuple(
            (Cell(_words(name)), *(_part(one.parts.get(name), one.headline) for _, one in have))
            for name in names
        )
        columns = (Cell("part"), *(Cell(model.model, _words(one.headline)) for model, one in have))
        yield Table(first.title, columns, rows)


def spread_table(models: Sequence[ModelResults]) -> Table | None:
    """How far scores move with the seed of the examples and the words of the prompt."""
    rows = [
        (Cell(one.title), Cell(model.model), *_spreads(one))
        for model in models
        for one in model.results
        if one.seeds_spread or one.prompts
    ]
    columns = ("benchmark", "model", "over seeds of examples", "over paraphrased prompts")
    title = "Seeds and prompts"
    return Table(title, tuple(map(Cell, columns)), tuple(rows), names=2) if rows else None


def contamination_table(models: Sequence[ModelResults]) -> Table | None:
    """Scores on items that the training data holds, and on the others."""
    rows = [
        (Cell(one.title), Cell(model.model), *_sides(one.contamination, one.headline))
        for model in models
        for one in model.results
        if one.contamination
    ]
    columns = ("benchmark", "model", "searched", "found", "score, clean", "score, found")
    title = "Contamination"
    return Table(title, tuple(map(Cell, columns)), tuple(rows), names=3) if rows else None


def comparison_table(comparisons: Sequence[Comparison]) -> Table | None:
    """Differences between two models with their p-values."""
    columns = (
        Cell("benchmark"),
        Cell("models", "second minus first"),
        Cell("difference"),
        Cell("p", "paired bootstrap"),
        Cell("p, Holm", "all benchmarks"),
        Cell("p, McNemar", "mid-p; exact below"),
        Cell("documents"),
    )
    rows = tuple(_compared(one) for one in comparisons)
    return Table("Comparison", columns, rows, names=2) if rows else None


def curve_table(rows: Sequence[dict[str, Any]]) -> Table | None:
    """Checkpoints as rows, benchmarks as columns."""
    names = list(dict.fromkeys(row["benchmark"] for row in rows))
    by_step: dict[int, dict[str, Any]] = {}
    for row in rows:
        by_step.setdefault(row["step"], {})[row["benchmark"]] = row
    columns = (Cell("step"), Cell("tokens"), *(Cell(name) for name in names))
    lines = tuple(_checkpoint(step, found, names) for step, found in by_step.items())
    return Table("Over checkpoints", columns, lines, names=0) if lines else None


def number(value: float, score: str) -> str:
    """A score as people read it: shares in percent, other quantities as they are."""
    text = f"{100 * value:.1f}" if is_share(score) else f"{value:.3f}"
    return text.replace("-", "\u2212")


def is_share(score: str) -> bool:
    """Whether a score is a share, which is told in percent."""
    return not score.lower().startswith(_NUMBERS)


def interval(one: Interval, score: str) -> Cell:
    """A score, its interval below."""
    return Cell(number(one.value, score), f"{number(one.low, score)}–{number(one.high, score)}")


def _guessers(found: dict[str, Result]) -> Iterator[tuple[Cell, ...]]:
    for name, title in (("chance", "Guessing"), ("baseline", "Most frequent answer")):
        values = [(getattr(one, name), one.headline) for one in found.values()]
        if any(value is not None for value, _ in values):
            cells = (Cell(NOTHING if v is None else number(v, score)) for v, score in values)
            yield (Cell(title), *cells)


def _ours(model: ModelResults, found: dict[str, Result]) -> tuple[Cell, ...]:
    cells = []
    for benchmark in found:
        one = model.get(benchmark)
        cell = interval(one.main, one.headline) if one else Cell(NOTHING)
        if one and one.limit:
            cell = Cell(cell.text, f"{cell.under}; {one.items:,} items only")
        cells.append(Cell(cell.text, cell.under, loud=bool(one)))
    return (Cell(model.model, loud=True), *cells)


def _others(
    found: dict[str, Result],
    published: Sequence[Published],
    sources: dict[tuple[str, str], int],
) -> Iterator[tuple[Cell, ...]]:
    named = [one for one in published if one.benchmark in found]
    for model, setting, source, url in dict.fromkeys(
        (one.model, one.setting, one.source, one.url) for one in named
    ):
        row = {
            o.benchmark: o
            for o in named
            if (o.model, o.setting, o.source) == (model, setting, source)
        }
        cells = (
            Cell(f"{100 * row[name].value:.1f}", row[name].differs) if name in row else Cell("")
            for name in found
        )
        yield (Cell(f"{model} [{sources[source, url]}]", setting), *cells)


def _detail(model: ModelResults, one: Result) -> tuple[Cell, ...]:
    seeds = f", seeds {', '.join(map(str, one.seeds))}" if one.seeds else ""
    shots = f"{one.num_fewshot}-shot{seeds}"
    chosen = ", ".join(f"{name}={value}" for name, value in one.conventions.items())
    limit = f"limit {one.limit:,}" if one.limit else ""
    share = f"{100 * one.unreadable / one.items:.1f} %" if one.unreadable else ""
    scores = ", ".join(f"{_words(n)} {number(s.value, n)}" for n, s in one.scores.items())
    return (
        Cell(one.title, one.split),
        Cell(model.model),
        Cell(one.method, shots),
        Cell(chosen or NOTHING),
        Cell(f"{one.items:,}", limit, loud=bool(limit)),
        Cell(f"{one.documents:,}"),
        Cell(f"{one.unreadable:,}", share, loud=one.unreadable > 0),
        Cell(scores),
    )


def _part(part: Part | None, headline: str) -> Cell:
    if part is None or not part.scores:
        return Cell(NOTHING)
    name = headline if headline in part.scores else next(iter(part.scores))
    cell = interval(part.scores[name], name)
    return Cell(cell.text, f"{cell.under}, n = {part.items:,}")


def _spreads(one: Result) -> Iterator[Cell]:
    for found in (one.seeds_spread, one.prompts):
        yield _spread(found, one.headline) if found else Cell(NOTHING)


def _spread(found: Spread, score: str) -> Cell:
    values = ", ".join(f"{name}: {number(value, score)}" for name, value in found.values.items())
    return Cell(f"{number(found.mean, score)} ± {number(found.std, score)}", values)


def _sides(found: Contamination, headline: str) -> Iterator[Cell]:
    dirty, clean = (part.items if part else 0 for part in (found.dirty, found.clean))
    share = f"{100 * dirty / (dirty + clean):.1f} % of items" if dirty else ""
    yield Cell(", ".join(found.against), f"{found.threshold:.0%} of an item's n-grams")
    yield Cell(f"{dirty:,} of {dirty + clean:,}", share, loud=dirty > 0)
    yield _part(found.clean, headline)
    yield _part(found.dirty, headline)


def _compared(one: Comparison) -> tuple[Cell, ...]:
    names = (Cell(one.title, _words(one.headline)), Cell(f"{one.second} minus {one.first}"))
    if one.difference is None:
        return (*names, Cell(NOTHING, one.obstacle), *[Cell(NOTHING)] * 4)
    gap = interval(one.difference, one.headline)
    test = one.mcnemar
    return (
        *names,
        Cell(
            f"{'+' if one.difference.value > 0 else ''}{gap.text}", gap.under.replace("–", " to ")
        ),
        Cell(_p(one.difference.p)),
        Cell(_p(one.p_holm), loud=one.p_holm < 0.05),
        Cell(_p(test.mid), f"{_p(test.exact)}; {test.only_second} : {test.only_first}")
        if test
        else Cell(NOTHING),
        Cell(f"{one.difference.documents:,}"),
    )


def _checkpoint(step: int, found: dict[str, Any], names: Sequence[str]) -> tuple[Cell, ...]:
    tokens = next(iter(found.values()))["consumed_tokens"]
    cells = [
        interval(
            Interval(found[n]["score"], found[n]["low"], found[n]["high"]),
            found[n].get("headline", ""),
        )
        if n in found
        else Cell(NOTHING)
        for n in names
    ]
    return (Cell(f"{step:,}"), Cell(f"{tokens:,}"), *cells)


def _each_benchmark(models: Sequence[ModelResults]) -> list[Result]:
    found: dict[str, Result] = {}
    for model in models:
        for one in model.results:
            found.setdefault(one.benchmark, one)
    return list(found.values())


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _words(name: str) -> str:
    return name.replace("_", " ")
