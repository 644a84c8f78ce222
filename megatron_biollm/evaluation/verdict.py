"""From answers to results: what every tool and hook does after a model has answered."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from megatron_biollm.evaluation.answers import Answers, Run
from megatron_biollm.evaluation.benchmark import Benchmark
from megatron_biollm.evaluation.contamination import Findings, contaminated
from megatron_biollm.evaluation.items import AnyItem, ChoiceItem
from megatron_biollm.evaluation.perplexity import SCORES as PERPLEXITIES
from megatron_biollm.evaluation.perplexity import TASK as TEXTS
from megatron_biollm.evaluation.plan import Prepared
from megatron_biollm.evaluation.results import Contamination, ModelResults, Result, make_result
from megatron_biollm.evaluation.tally import Tally


def judge(
    answers: Answers,
    prepared: Sequence[Prepared],
    details: Mapping[str, Any] | None = None,
    findings: Findings | None = None,
) -> ModelResults:
    """The results of a model on benchmarks from its stored answers.

    findings: items that the training data holds, which are also scored apart, under the first seed.

    Raises:
        UserError: answers that are missing, or belong to other items; findings of another split.
    """
    results, tallies = [], {}
    for one in prepared:
        by_run = {run.file: tally_of(answers, run, one) for run in one.runs}
        result = result_of(one, by_run)
        if findings:
            result = replace(result, contamination=_sides(answers, one, findings))
        results.append(result)
        tallies[one.benchmark.name] = by_run[one.runs[0].file]
    return ModelResults(answers.model["name"], tuple(results), dict(details or {}), tallies)


def tally_of(answers: Answers, run: Run, prepared: Prepared) -> Tally:
    """The counts of one run."""
    predictions = answers.predictions(run, prepared.items)
    return prepared.benchmark.score(prepared.items, predictions, prepared.conventions)


def _sides(answers: Answers, one: Prepared, findings: Findings) -> Contamination | None:
    predictions = answers.predictions(one.runs[0], one.items)
    return contaminated(one.benchmark, one.items, predictions, one.conventions, one.split, findings)


def result_of(one: Prepared, by_run: Mapping[str, Tally]) -> Result:
    """The result of a benchmark from the counts of its runs, by the name of their files."""
    first = one.runs[0].asking
    seeds = [run for run in one.runs if run.asking.paraphrase == first.paraphrase]
    tallies = [by_run[run.file] for run in seeds]
    prompts = {
        str(run.asking.paraphrase): by_run[run.file].value()
        for run in one.runs
        if run.asking.seed == first.seed
    }
    chance, baseline = guesses(one.benchmark, one.items, one.conventions)
    return make_result(
        one.benchmark,
        tallies,
        conventions=one.conventions,
        method=_method(one.runs[0]),
        split=one.split,
        num_fewshot=first.num_fewshot,
        seeds=[run.asking.seed for run in seeds] if first.num_fewshot else (),
        limit=one.runs[0].limit,
        chance=chance,
        baseline=baseline,
        prompts=prompts if len(prompts) > 1 else None,
    )


def _method(run: Run) -> str:
    """The method with what else of the asking is not as usual."""
    asking = run.asking
    parts = [asking.method]
    if asking.method == "likelihood":
        parts += [asking.continuation] if asking.continuation != "auto" else []
        parts += ["by length"] if asking.normalise != "none" else []
    parts += [f"{asking.samples} samples"] if asking.samples > 1 else []
    parts += ["chat"] if asking.chat else []
    return ", ".join(parts)


def guesses(
    benchmark: Benchmark, items: Sequence[AnyItem], conventions: Mapping[str, str]
) -> tuple[float | None, float | None]:
    """The headline score of guessing at random, as far as it is known, and of giving always the
    same answer, the best of these; None for what has no choices."""
    if not isinstance(items[0], ChoiceItem):
        return None, None
    tallies = [
        benchmark.score(items, [min(i, len(one.choices) - 1) for one in items], conventions)
        for i in range(max(len(one.choices) for one in items))
    ]
    chance = float(np.mean([1 / len(one.choices) for one in items]))
    headline = tallies[0].headline
    return chance if headline == "accuracy" else None, max(one.value() for one in tallies)


def table(results: ModelResults) -> str:
    """Headline scores as text, with their intervals, conventions, and what a guesser gets; below
    them the perplexity of texts."""
    texts = [one for one in results.results if one.task == TEXTS]
    asked = [one for one in results.results if one.task != TEXTS]
    blocks = [_scores(asked)] * bool(asked) + [_texts(texts)] * bool(texts)
    return "\n".join([results.model, "\n\n".join(map(_aligned, blocks))])


def _scores(results: Sequence[Result]) -> list[tuple[str, ...]]:
    rows = [("benchmark", "score", "", "95 %", "chance", "items", "unreadable", "asked")]
    for one in results:
        guess = one.chance if one.chance is not None else one.baseline
        rows.append(
            (
                one.benchmark,
                one.headline,
                f"{one.main.value:.4f}",
                f"{one.main.low:.4f} - {one.main.high:.4f}",
                "" if guess is None else f"{guess:.4f}",
                f"{one.items}" + ("" if one.limit is None else " (limited)"),
                f"{one.unreadable}",
                _asked(one),
            )
        )
    return rows


def _texts(results: Sequence[Result]) -> list[tuple[str, ...]]:
    rows = [("texts", "bits per byte", "95 %", "per word", "per token", "documents")]
    for one in results:
        bits, word, token = (one.scores[name] for name, _ in PERPLEXITIES)
        rows.append(
            (
                one.title,
                f"{bits.value:.4f}",
                f"{bits.low:.4f} - {bits.high:.4f}",
                f"{word.value:.4f}",
                f"{token.value:.4f}",
                f"{one.documents}" + ("" if one.limit is None else " (limited)"),
            )
        )
    return rows


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _asked(one: Result) -> str:
    shots = f"{one.num_fewshot}-shot"
    parts = [one.split, one.method, shots + (f" x {len(one.seeds)}" if len(one.seeds) > 1 else "")]
    return ", ".join([*parts, *(f"{name}={value}" for name, value in one.conventions.items())])
