"""What a model scored on benchmarks, in a folder that can be read, compared and reported later.

    results.json   who was scored, how, and every score with its interval
    tallies.npz    counts by document, from which two models are compared

Both are written in one step each, the JSON last: without it there are no results.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from megatron_biollm.atomic import disk_errors, whole_file, write_json
from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmark import Benchmark
from megatron_biollm.evaluation.perplexity import TASK as TEXTS
from megatron_biollm.evaluation.perplexity import score_texts
from megatron_biollm.evaluation.statistics import (
    LEVEL,
    RESAMPLES,
    SEED,
    Interval,
    Spread,
    bootstrap_mean,
    intervals,
    spread,
)
from megatron_biollm.evaluation.tally import Tally

VERSION = 1
RESULTS, TALLIES = "results.json", "tallies.npz"
_REMEDY = "score the model again with tools/evaluate.py"


@dataclass(frozen=True)
class Part:
    """Scores of a part of the items: a type, a subject, a side of the contamination."""

    items: int
    unreadable: int
    scores: Mapping[str, Interval]


@dataclass(frozen=True)
class Contamination:
    """How the model scores on items that the training data holds, and on the others.

    Attributes:
        threshold: share of an item's n-grams found from which on it counts as dirty.
        clean, dirty: None where there is no such item.
        against: the training data, by name.
    """

    threshold: float
    against: tuple[str, ...]
    clean: Part | None
    dirty: Part | None


@dataclass(frozen=True)
class Result:
    """One benchmark of one model.

    Attributes:
        benchmark, title, task: as in `Benchmark`.
        split: that was scored. conventions: every one with its value.
        method: how answers were got, such as "likelihood", "generate" or "cot".
        num_fewshot: examples in the prompt. seeds: by which they were chosen.
        limit: items that were scored at most; None for all of them.
        items, documents, unreadable: counts, over one seed.
        headline: name of the benchmark's own score.
        scores: with intervals; the mean over seeds where there are several.
        chance: the headline of a guesser, where guessing is possible.
        baseline: the headline of one who always gives the same answer, the best of these.
        parts: by name (a type, a subject).
        seeds_spread: of the headline over seeds of few-shot examples.
        prompts: of the headline over paraphrased instructions.
        contamination: None where the training data was not searched.
        level: of the intervals.
    """

    benchmark: str
    title: str
    task: str
    split: str
    conventions: Mapping[str, str]
    method: str
    num_fewshot: int
    seeds: tuple[int, ...]
    limit: int | None
    items: int
    documents: int
    unreadable: int
    headline: str
    scores: Mapping[str, Interval]
    chance: float | None = None
    baseline: float | None = None
    parts: Mapping[str, Part] = field(default_factory=dict)
    seeds_spread: Spread | None = None
    prompts: Spread | None = None
    contamination: Contamination | None = None
    level: float = LEVEL

    @property
    def main(self) -> Interval:
        """The benchmark's own score."""
        return self.scores[self.headline]


@dataclass(frozen=True)
class ModelResults:
    """All results of one model.

    Attributes:
        model: its name in tables.
        results: in the order of the tables.
        details: what else is known: checkpoint, step, tokens seen, software, date.
        tallies: by benchmark, of the first seed; empty where results were read without them.
    """

    model: str
    results: tuple[Result, ...]
    details: Mapping[str, Any] = field(default_factory=dict)
    tallies: Mapping[str, Tally] = field(default_factory=dict)

    def get(self, benchmark: str) -> Result | None:
        """The result of a benchmark, if it was scored."""
        return next((one for one in self.results if one.benchmark == benchmark), None)


def make_result(
    benchmark: Benchmark,
    tallies: Sequence[Tally],
    *,
    conventions: Mapping[str, str],
    method: str,
    split: str = "",
    num_fewshot: int = 0,
    seeds: Sequence[int] = (),
    limit: int | None = None,
    chance: float | None = None,
    baseline: float | None = None,
    prompts: Mapping[str, float] | None = None,
    contamination: Contamination | None = None,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Result:
    """The result of a benchmark from its tallies, one for each seed of few-shot examples.

    Args:
        conventions: every one with its value, from `Benchmark.choose`.
        seeds: of few-shot examples, one for each tally; none for zero-shot.
        prompts: the headline by paraphrase of the instruction.
        seed: of the resampling.

    Raises:
        UserError: no document was scored, or the tallies do not belong together.
    """
    sure = {"level": level, "resamples": resamples, "seed": seed}
    if len(tallies) > 1 and len(tallies) != len(seeds):
        raise UserError(
            f"{benchmark.name}: {len(tallies)} tallies and {len(seeds)} seeds; give a seed for "
            "each tally"
        )
    first = tallies[0]
    by_seed = {str(s): tally.value() for s, tally in zip(seeds, tallies, strict=False)}
    return Result(
        benchmark=benchmark.name,
        title=benchmark.title,
        task=benchmark.task,
        split=split or benchmark.test_split,
        conventions=dict(conventions),
        method=method,
        num_fewshot=num_fewshot,
        seeds=tuple(seeds),
        limit=limit,
        items=first.items,
        documents=len(first.documents),
        unreadable=round(float(np.mean([tally.unreadable for tally in tallies]))),
        headline=first.headline,
        scores=_scores(tallies, sure),
        chance=chance,
        baseline=baseline,
        parts={name: make_part(part, **sure) for name, part in first.parts.items()},
        seeds_spread=spread(by_seed) if len(by_seed) > 1 else None,
        prompts=spread(prompts) if prompts else None,
        contamination=contamination,
        level=level,
    )


def make_part(tally: Tally, **sure: Any) -> Part:
    """Scores of a part; without intervals where it holds nothing."""
    if len(tally.documents):
        return Part(tally.items, tally.unreadable, intervals(tally, **sure))
    return Part(tally.items, tally.unreadable, {})


def write_results(folder: Path | str, results: ModelResults) -> Path:
    """Writes FOLDER/tallies.npz and FOLDER/results.json; returns the path of the latter.

    Raises:
        UserError: the folder cannot be written.
    """
    path = Path(folder) / RESULTS
    arrays = {}
    for name, tally in results.tallies.items():
        arrays[f"{name}/documents"] = np.array(tally.documents, np.str_)
        arrays[f"{name}/counts"] = tally.counts_dk
        arrays[f"{name}/items"] = np.array([tally.items, tally.unreadable])
    with disk_errors(path, "free some disk space and score again"):
        with whole_file(path.with_name(TALLIES)) as file:
            np.savez_compressed(file, **arrays)
        rows = [asdict(one) for one in results.results]
        head = {
            "version": VERSION,
            "model": results.model,
            "details": dict(results.details),
            "tallies_sha256": _digest(path.with_name(TALLIES).read_bytes()),
        }
        write_json(path, {**head, "results": rows})
    return path


def read_results(
    folder: Path | str, benchmarks: Mapping[str, Benchmark] | None = None
) -> ModelResults:
    """The results in a folder; with `benchmarks` also their tallies, for comparisons.

    benchmarks: by name; texts need none. What counts mean is not stored: a benchmark's scorer
    tells it, asked to score nothing.

    Raises:
        UserError: there are none, they are damaged, or another version wrote them.
    """
    path = Path(folder) / RESULTS
    if not path.is_file():
        raise UserError(f"{path} does not exist; give a folder that tools/evaluate.py wrote")
    try:
        stored = json.loads(path.read_bytes())
        version = stored["version"]
        if version != VERSION:
            raise UserError(
                f"{path} has version {version}, but this program reads {VERSION}; {_REMEDY}"
            )
        results = tuple(_result(row) for row in stored["results"])
        model, details, digest = stored["model"], stored["details"], stored["tallies_sha256"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged ({error!r}); {_REMEDY}") from error
    tallies = {}
    if benchmarks is not None:
        arrays = _read_arrays(path.with_name(TALLIES), digest)
        scorers = {name: one.score for name, one in benchmarks.items()}
        scorers |= {one.benchmark: score_texts for one in results if one.task == TEXTS}
        known = [one for one in results if f"{one.benchmark}/counts" in arrays]
        known = [one for one in known if one.benchmark in scorers]
        tallies = {o.benchmark: _tally(o, arrays, scorers[o.benchmark]) for o in known}
    return ModelResults(model, results, details, tallies)


def _scores(tallies: Sequence[Tally], sure: Mapping[str, Any]) -> dict[str, Interval]:
    if len(tallies) == 1:
        return intervals(tallies[0], **sure)
    return {name: bootstrap_mean(tallies, name, **sure) for name in tallies[0].scores}


def _result(row: dict[str, Any]) -> Result:
    known = {one.name for one in fields(Result)}
    if extra := sorted(set(row) - known):
        raise KeyError(f"unknown {', '.join(extra)}")
    made = dict(row)
    made["seeds"] = tuple(row["seeds"])
    made["scores"] = _intervals(row["scores"])
    made["parts"] = {name: _part(part) for name, part in row["parts"].items()}
    for name in ("seeds_spread", "prompts"):
        made[name] = Spread(**row[name]) if row[name] else None
    if found := row["contamination"]:
        sides = {side: _part(found[side]) for side in ("clean", "dirty")}
        made["contamination"] = Contamination(found["threshold"], tuple(found["against"]), **sides)
    return Result(**made)


def _part(row: dict[str, Any] | None) -> Part | None:
    return row and Part(row["items"], row["unreadable"], _intervals(row["scores"]))


def _intervals(row: dict[str, Any]) -> dict[str, Interval]:
    return {name: Interval(**one) for name, one in row.items()}


def _read_arrays(path: Path, digest: str) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UserError(f"{path} does not exist, so models cannot be compared; {_REMEDY}")
    data = path.read_bytes()
    if _digest(data) != digest:
        raise UserError(f"{path} is damaged or not of the {RESULTS} beside it; {_REMEDY}")
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        return dict(stored)


def _tally(result: Result, arrays: Mapping[str, np.ndarray], score: Callable) -> Tally:
    name = result.benchmark
    items, unreadable = arrays[f"{name}/items"].tolist()
    return Tally(
        tuple(arrays[f"{name}/documents"].tolist()),
        arrays[f"{name}/counts"],
        score([], [], result.conventions).scores,
        items,
        unreadable,
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
