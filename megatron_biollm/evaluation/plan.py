"""What is asked of a model: benchmarks with their files, conventions, examples and items."""

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.answers import Answer, Answers, Run, digest
from megatron_biollm.evaluation.asking import STORED, Asking
from megatron_biollm.evaluation.benchmark import Benchmark, MissingFile
from megatron_biollm.evaluation.fewshot import Examples
from megatron_biollm.evaluation.items import AnyItem
from megatron_biollm.evaluation.perplexity import TASK as TEXTS
from megatron_biollm.evaluation.prompts import method_of, wording
from megatron_biollm.log import get_logger

logger = get_logger(__name__)


@dataclass(frozen=True)
class Plan:
    """What a user asks for.

    Attributes:
        benchmarks: in the order of the tables.
        data: folder with the benchmarks' folders.
        asking: how, but for seed and paraphrase.
        seeds: of the examples; without examples the first alone is used.
        paraphrases: score the instruction's paraphrases too (prompt sensitivity).
        limit: so many items of each, drawn evenly and the same every time; None for all.
        splits, fewshot_splits: by benchmark, where not its own.
        conventions: by benchmark, values by name. files: by benchmark, paths by role.
        skip_missing: leave out benchmarks whose files are absent.
    """

    benchmarks: Sequence[Benchmark]
    data: Path
    asking: Asking = field(default_factory=Asking)
    seeds: tuple[int, ...] = (0,)
    paraphrases: bool = False
    limit: Optional[int] = None
    splits: Mapping[str, str] = field(default_factory=dict)
    fewshot_splits: Mapping[str, str] = field(default_factory=dict)
    conventions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    skip_missing: bool = False

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UserError(f"limit={self.limit} must be at least 1; leave it out for all items")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds={list(self.seeds)} must be at least one, and all different")
        names = [one.name for one in self.benchmarks]
        for what in ("splits", "fewshot_splits", "conventions", "files"):
            for name in set(getattr(self, what)) - set(names):
                raise UserError(
                    f"{what} of {name!r} are given, and it is not asked: {', '.join(names)} are"
                )


@dataclass(frozen=True)
class Prepared:
    """A benchmark whose files have been read.

    Attributes:
        benchmark: itself.
        split: that is scored.
        conventions: every one with its value.
        files: given by the user, by role.
        items: that are asked.
        pool: where examples come from. same_split: it is the split that is scored.
        runs: what is to be asked of them, each in its own file of answers.
    """

    benchmark: Benchmark
    split: str
    conventions: Mapping[str, str]
    files: Mapping[str, str]
    items: Sequence[AnyItem]
    pool: Sequence[AnyItem] = ()
    same_split: bool = False
    runs: Sequence[Run] = ()

    def examples(self, asking: Asking) -> Examples:
        """Of a run."""
        by_group = self.benchmark.fewshot_by_group
        return Examples(self.pool, asking.num_fewshot, asking.seed, self.same_split, by_group)

    def ask(self, model: Any, run: Run) -> tuple[Run, list[Answer]]:
        """The answers of a model of lm-eval to a run, which takes note of how it went.

        Needs `offline.prepare_lm_eval`. Ranks that share a model call this alike.
        """
        from megatron_biollm.evaluation.tasks import Asked, ask

        start, examples = time.perf_counter(), self.examples(run.asking)
        asked = Asked(self.benchmark, self.items, self.conventions, run.asking, examples)
        answers, task = ask(model, asked)
        seconds = time.perf_counter() - start
        return replace(
            run, shortened=task.shortened, too_long=task.too_long, seconds=seconds
        ), answers


def prepare(plan: Plan) -> list[Prepared]:
    """Reads all files and checks all that can be checked before a model is loaded.

    Raises:
        UserError: the first thing wrong with each benchmark, of all of them at once.
    """
    found, problems, remedy = [], [], ""
    for benchmark in plan.benchmarks:
        try:
            found.append(_prepare(plan, benchmark))
        except MissingFile as error:
            if plan.skip_missing:
                logger.warning("%s is left out: %s", benchmark.name, error)
                continue
            problems.append(f"{benchmark.name}: {error}")
            remedy = "\n(--skip-missing leaves out benchmarks whose files are absent)"
        except UserError as error:
            problems.append(f"{benchmark.name}: {error}")
    if problems:
        raise UserError("\n".join(problems) + remedy)
    if not found:
        raise UserError(f"none of the benchmarks has its files in {plan.data}; give another --data")
    return found


def _prepare(plan: Plan, benchmark: Benchmark) -> Prepared:
    name = benchmark.name
    if benchmark.task == TEXTS:  # there are no examples of a text, nor other ways to ask
        plan = replace(plan, asking=Asking(), seeds=(0,), paraphrases=False)
    split = plan.splits.get(name, "") or benchmark.test_split
    conventions = benchmark.choose(plan.conventions.get(name, {}))
    files = dict(plan.files.get(name, {}))
    items = benchmark.read(benchmark.source(plan.data, split, files), conventions)
    if not items:
        raise UserError(f"its split {split!r} holds no item; check its files")
    chosen = drawn(items, plan.limit)
    prepared = Prepared(benchmark, split, conventions, files, chosen)
    if plan.asking.num_fewshot:
        shots = plan.fewshot_splits.get(name, "") or benchmark.fewshot_split
        if not shots:
            raise UserError("it has no split for examples; name one with --fewshot-split")
        same = shots == split
        pool = (
            items if same else benchmark.read(benchmark.source(plan.data, shots), {**conventions})
        )
        prepared = replace(prepared, pool=pool, same_split=same)
    runs = tuple(_runs(plan, prepared))
    for asking in (run.asking for run in runs):
        wording(benchmark, chosen, asking)
        examples = prepared.examples(asking)
        for item in chosen if asking.num_fewshot else ():
            examples.of(item)
    return replace(prepared, runs=runs)


def _runs(plan: Plan, prepared: Prepared) -> Iterator[Run]:
    method = method_of(plan.asking, prepared.items[0])
    asking = replace(plan.asking, method=method)
    if method != "cot":
        asking = replace(asking, samples=1)
    seeds = plan.seeds if asking.num_fewshot else plan.seeds[:1]
    base = Run(
        prepared.benchmark.name,
        prepared.split,
        dict(prepared.conventions),
        limit=plan.limit,
        files=dict(prepared.files),
        items_sha256=digest(prepared.items),
    )
    for seed in seeds:
        yield replace(base, asking=replace(asking, seed=seed))
    if not plan.paraphrases:
        return
    for number in range(len(prepared.benchmark.prompt.paraphrases) + 1):
        if number != asking.paraphrase:
            yield replace(base, asking=replace(asking, seed=seeds[0], paraphrase=number))


def with_stored(plan: Plan, answers: Answers) -> Plan:
    """A plan in which splits, conventions, files and limit are those that answers were given to,
    where the plan does not say otherwise."""
    runs = {run.benchmark: run for run in reversed(answers.runs) if run.items_sha256}
    runs = {one.name: runs[one.name] for one in plan.benchmarks if one.name in runs}
    limits = {run.limit for run in runs.values()}
    return replace(
        plan,
        asking=Asking(),
        limit=limits.pop() if plan.limit is None and len(limits) == 1 else plan.limit,
        splits={name: run.split for name, run in runs.items()} | dict(plan.splits),
        conventions=_over({name: run.conventions for name, run in runs.items()}, plan.conventions),
        files=_over({name: run.files for name, run in runs.items()}, plan.files),
    )


def _over(
    stored: Mapping[str, Mapping[str, str]], asked: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, str]]:
    """By benchmark and name what was asked for, else what is stored."""
    names = dict.fromkeys([*stored, *asked])
    return {name: {**stored.get(name, {}), **asked.get(name, {})} for name in names}


def as_answered(prepared: Prepared, answers: Answers) -> Prepared:
    """The same with the runs that stored answers hold of this benchmark, in place of one's own.

    Raises:
        UserError: it was not answered, or on another split, by other conventions or a limit.
    """
    name = prepared.benchmark.name
    runs = [run for run in answers.runs if run.benchmark == name]
    if not runs:
        known = ", ".join(dict.fromkeys(run.benchmark for run in answers.runs))
        raise UserError(f"{answers.folder} holds no answers to {name}, but to {known}; name these")
    ours = prepared.runs[0]
    # Conventions that belong to the scorer alone may be others.
    if runs[0].items_sha256 not in ("", digest(prepared.items)):
        differs = [
            f"{what}={getattr(runs[0], what)!r}, and is to be scored with {getattr(ours, what)!r}"
            for what in ("split", "conventions", "limit", "files")
            if getattr(runs[0], what) != getattr(ours, what)
        ]
        raise UserError(
            f"{answers.folder}: {name} was answered with "
            f"{'; '.join(differs) or 'other files of the same name'}; score what was asked"
        )
    first = replace(ours, asking=replace(ours.asking, method=STORED, seed=0, paraphrase=0))
    return replace(prepared, runs=runs if runs[0].items_sha256 else (first,))


def drawn(items: Sequence[AnyItem], limit: Optional[int]) -> Sequence[AnyItem]:
    """At most so many of the items, in their order, whatever model is asked."""
    if limit is None or limit >= len(items):
        return items
    return [items[i] for i in sorted(random.Random(0).sample(range(len(items)), limit))]
