"""What is lost where mentions and relations are asked as lines of text, and how long scoring takes.

Gold answers are written as a model should write them, read back and scored: the score is the most
that any model can get. Of mentions it is less than 1 where a sentence has a name twice and only one
of them is a mention. The scorer of mentions is timed beside seqeval's strict IOB2, both from the
tags of the same sentences.
"""

import importlib.util
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmark import Benchmark
from megatron_biollm.evaluation.benchmarks.bio import Tagged, read_tagged
from megatron_biollm.evaluation.benchmarks.extraction import ENTITIES, OTHERS, RELATIONS
from megatron_biollm.evaluation.entities import span_tally, tag_spans
from megatron_biollm.evaluation.items import AnyItem, ChoiceItem, Prediction, SpanItem, TripleItem
from megatron_biollm.evaluation.span_text import read_spans, write_spans
from megatron_biollm.evaluation.triple_text import read_triples, write_triples

_CHANGED = 0.08


def benchmark_extraction(data: Path, repeats: int = 3) -> dict[str, Any]:
    """Measures every split that is there, under every convention.

    Args:
        data: folder of the benchmarks.
        repeats: rounds of the timed scorers.

    Raises:
        UserError: a file is not as published, or no benchmark of entities is there.
    """
    rows = [row for one in (*ENTITIES, *RELATIONS, *OTHERS) for row in _rows(one, data)]
    if not rows:
        raise UserError(f"no benchmark of entities or relations is below {data}; see their READMEs")
    return {"rows": rows, "scorers": _scorers(data, repeats)}


def _rows(benchmark: Benchmark, data: Path) -> Iterator[dict[str, Any]]:
    for split in benchmark.splits:
        source = benchmark.source(data, split)
        if not all(_is_there(source.folder / path) for path in source.paths.values()):
            continue
        for asked in _variants(benchmark):
            chosen = benchmark.choose(asked)
            start = time.perf_counter()
            items = benchmark.read(source, chosen)
            read = time.perf_counter() - start
            yield _row(benchmark, split, chosen, items) | {"read_seconds": round(read, 2)}


def _is_there(path: Path) -> bool:
    return path.exists() or path.with_name(path.name + ".gz").exists()


def _variants(benchmark: Benchmark) -> Iterator[dict[str, str]]:
    """The standard conventions, then each other value of one of them."""
    yield {}
    for convention in benchmark.conventions:
        yield from ({convention.name: value} for value in convention.values[1:])


def _row(
    benchmark: Benchmark, split: str, chosen: dict[str, str], items: Sequence[AnyItem]
) -> dict[str, Any]:
    start = time.perf_counter()
    told = [_told(item) for item in items]
    tally = benchmark.score(items, told, chosen)
    return {
        "benchmark": benchmark.name,
        "split": split,
        "conventions": chosen,
        "items": len(items),
        "documents": len(tally.documents),
        "sought": sum(_sought(item) for item in items),
        "score": tally.headline,
        "gold_as_lines": tally.value(),
        "score_seconds": round(time.perf_counter() - start, 2),
    }


def _told(item: AnyItem) -> Prediction:
    """The gold answer, through the text of a model where there is one."""
    if isinstance(item, ChoiceItem):
        return item.answer
    if isinstance(item, SpanItem):
        return read_spans(write_spans(item), item)
    return read_triples(write_triples(item), item) if isinstance(item, TripleItem) else item.labels


def _sought(item: AnyItem) -> int:
    if isinstance(item, ChoiceItem):
        return int(item.answer > 0)
    gold = item.spans if isinstance(item, SpanItem) else getattr(item, "triples", None)
    return len(item.labels if gold is None else gold)


def _scorers(data: Path, repeats: int) -> list[dict[str, Any]]:
    """Seconds of this scorer and of seqeval's on the longest tokenised file there is."""
    from megatron_biollm.evaluation.benchmarks.bc5cdr import BC5CDR_DISEASE

    source = BC5CDR_DISEASE.source(data)
    if not _is_there(source.folder / source.paths["sentences"]):
        return []
    author = random.Random(1)
    gold = read_tagged(source.path("sentences"), ("Disease",))
    found = [_changed(one.tags, author) for one in gold]
    sides: dict[str, Callable[[], float]] = {"megatron_biollm": lambda: _ours(gold, found)}
    if importlib.util.find_spec("seqeval"):
        sides["seqeval, strict IOB2"] = lambda: _seqeval(gold, found)
    times: dict[str, list[float]] = {name: [] for name in sides}
    values = {}
    for _ in range(repeats):
        for name, run in sides.items():
            start = time.perf_counter()
            values[name] = run()
            times[name].append(time.perf_counter() - start)
    return [
        {"scorer": name, "sentences": len(gold), "f1": values[name],
         "seconds": round(statistics.median(some), 4)}
        for name, some in times.items()
    ]  # fmt: skip


def _changed(tags: Sequence[str], author: random.Random) -> list[str]:
    """Tags with some of them changed at random."""
    some = ("O", "B-Disease", "I-Disease")
    return [author.choice(some) if author.random() < _CHANGED else tag for tag in tags]


def _ours(gold: Sequence[Tagged], found: Sequence[list[str]]) -> float:
    items = [SpanItem(one.where, one.where, "", tuple(tag_spans(one.tags))) for one in gold]
    return span_tally(items, [tuple(tag_spans(tags)) for tags in found]).value()


def _seqeval(gold: Sequence[Tagged], found: Sequence[list[str]]) -> float:
    from seqeval.metrics import f1_score
    from seqeval.scheme import IOB2

    return float(f1_score([list(one.tags) for one in gold], found, mode="strict", scheme=IOB2))


def table(report: dict[str, Any]) -> str:
    """The report as Markdown, without conventions that change nothing here."""
    lines = [
        "| benchmark | split | conventions | items | sought | score | gold as lines |",
        "|---|---|---|---|---|---|---|",
    ]
    standard: dict[tuple[str, str], str] = {}
    for row in report["rows"]:
        key, score = (row["benchmark"], row["split"]), f"{row['gold_as_lines']:.4f}"
        if standard.setdefault(key, "") == score:
            continue
        standard[key] = standard[key] or score
        chosen = " ".join(f"{name}={value}" for name, value in row["conventions"].items())
        lines.append(
            f"| {row['benchmark']} | {row['split']} | {chosen} | {row['items']:,} "
            f"| {row['sought']:,} | {row['score']} | {score} |"
        )
    lines += ["", "| scorer | sentences | seconds | F1 |", "|---|---|---|---|"]
    lines += [
        f"| {one['scorer']} | {one['sentences']:,} | {one['seconds']} | {one['f1']:.6f} |"
        for one in report["scorers"]
    ]
    return "\n".join(lines)
