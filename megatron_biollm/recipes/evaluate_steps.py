"""What every scoring does around a model: who it is, its answers, results and report."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from megatron_biollm.checkpoint import verify
from megatron_biollm.config import UserError
from megatron_biollm.evaluation.answers import INDEX, Answers
from megatron_biollm.evaluation.asking import Asking
from megatron_biollm.evaluation.contamination import Findings
from megatron_biollm.evaluation.curve import CURVE, read_curve
from megatron_biollm.evaluation.plan import Prepared
from megatron_biollm.evaluation.report import NUMBERS, write_report
from megatron_biollm.evaluation.results import (
    RESULTS,
    ModelResults,
    read_results,
    write_results,
)
from megatron_biollm.evaluation.suite import all_benchmarks
from megatron_biollm.evaluation.verdict import judge, table, tally_of
from megatron_biollm.log import get_logger, setup_logging
from megatron_biollm.recipes.generate import Group
from megatron_biollm.rows import read_rows

if TYPE_CHECKING:
    from lm_eval.api.model import TemplateLM

ANSWERS = "answers"
_SOFTWARE = ("megatron_biollm", "megatron-core", "torch", "transformers", "lm_eval")
logger = get_logger(__name__)


@dataclass(frozen=True)
class Where:
    """Where a model runs and what it leaves.

    Attributes:
        output: folder for answers, results and report.
        name: of the model in tables; empty for that of its folder.
        device: cpu, cuda or auto.
        overrides: `parallel.field=value`; ranks beyond tensor times pipeline parallelism are
            replicas, which share the questions.
        batch_tokens: most tokens that go through the model at once.
        findings: items that the training data holds (tools/contamination.py), scored apart.
    """

    output: Path
    name: str = ""
    device: str = "auto"
    overrides: Sequence[str] = ()
    batch_tokens: int = 4096
    findings: Optional[Findings] = None


def of_checkpoint(folder: Path, name: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """Who a checkpoint is: what its answers are stored under, and what a report says of it."""
    step = verify.step_of(folder) if verify.STEP_FOLDER.fullmatch(folder.name) else None
    run = folder.resolve().parents[1].name if step is not None else folder.resolve().name
    model = {
        "name": name or (run if step is None else f"{run} at step {step}"),
        "checkpoint": str(folder.resolve()),
        "sha256": sha256((folder / verify.DIGESTS).read_bytes()),
    }
    details: dict[str, Any] = {"checkpoint": str(folder)}
    if step is not None:
        details |= {"step": step, "consumed_tokens": consumed_tokens(folder)}
    return model, details


def consumed_tokens(folder: Path) -> Optional[int]:
    """Tokens that a checkpoint's run was trained on, as its metrics say; None where they do not."""
    step, path = verify.step_of(folder), folder.parents[1] / "metrics.jsonl"
    rows = read_rows(path) if path.is_file() else []
    found = [row["consumed_tokens"] for row in rows if row.get("step") == step]
    return found[-1] if found else None


def open_answers(output: Path, model: Mapping[str, Any]) -> Answers:
    """The answers below an output folder, those of an earlier start included.

    Raises:
        UserError: they are another model's.
    """
    folder = output / ANSWERS
    if not (folder / INDEX).is_file():
        return Answers(folder, model)
    answers = Answers.open(folder)
    if answers.model.get("sha256") != model.get("sha256"):
        raise UserError(
            f"{folder} holds the answers of {answers.model.get('name')!r}, and {model['name']!r} "
            f"is another model or has changed since; choose another --output"
        )
    answers.model = dict(model)
    return answers


def ask_all(
    load: Callable[[], "TemplateLM"],
    prepared: Sequence[Prepared],
    answers: Answers,
    control: Optional[Group] = None,
) -> None:
    """Has every run answered that is not yet; rank 0 stores each as soon as it is there.

    load: gives the model; not called where all is answered. All ranks call this alike, with the
    answers of rank 0.
    """
    wanted = [(one, run) for one in prepared for run in one.runs if not answers.holds(run)]
    done = sum(len(one.runs) for one in prepared) - len(wanted)
    if done:
        logger.info("%d of %d runs were answered before", done, done + len(wanted))
    if not wanted:
        return
    model = load()
    for number, (one, run) in enumerate(wanted, start=1):
        logger.info(
            "%s (%d of %d): %d items, %s", _label(one, run.asking), number, len(wanted),
            len(one.items), run.asking.method,
        )  # fmt: skip
        run, found = one.ask(model, run)
        if control is None or control.rank() == 0:
            answers.add(run, found)
            score = tally_of(answers, run, one)
            logger.info(
                "%s: %s %.4f in %.1f s%s", _label(one, run.asking), score.headline, score.value(),
                run.seconds, _cut(run.shortened, run.too_long),
            )  # fmt: skip


def finish(
    answers: Answers, prepared: Sequence[Prepared], details: Mapping[str, Any], where: Where
) -> ModelResults:
    """Scores the answers and writes results; of the same model, earlier ones of others stay."""
    output = where.output
    found = judge(answers, prepared, {**details, "software": software()}, where.findings)
    if (output / RESULTS).is_file() and (output / ANSWERS).is_dir():
        earlier = read_results(output, all_benchmarks())
        found = merged(earlier, found) if earlier.model == found.model else found
    write_results(output, found)
    return found


def merged(earlier: ModelResults, later: ModelResults) -> ModelResults:
    """The later results, and the earlier ones of other benchmarks, in the order of the tables."""
    by_name = {one.benchmark: one for one in (*earlier.results, *later.results)}
    order = [name for name in all_benchmarks() if name in by_name]
    order += [name for name in by_name if name not in order]
    return dataclasses.replace(
        later,
        results=tuple(by_name[name] for name in order),
        tallies={**earlier.tallies, **later.tallies},
    )


@dataclass(frozen=True)
class Reported:
    """What is told of results: a table as text, and all numbers as they are for JSON."""

    table: str
    numbers: dict[str, Any]


def report(output: Path, compare: Sequence[Path] = (), curve: Optional[Path] = None) -> Reported:
    """Writes the report of an output folder, beside those of other models.

    curve: file of scores over checkpoints, in place of the folder's own.

    Raises:
        UserError: a folder without results, or two models of one name.
    """
    setup_logging()
    models = [read_results(folder, all_benchmarks()) for folder in (output, *compare)]
    curve = curve or output / CURVE
    page = write_report(output, models, read_curve(curve) if curve.is_file() else ())
    logger.info("report: %s", page)
    return Reported(table(models[0]), json.loads((output / NUMBERS).read_bytes()))


def software() -> str:
    """Versions of what took part."""
    found = []
    for name in _SOFTWARE:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return ", ".join(found)


def _label(one: Prepared, asking: Asking) -> str:
    parts = [one.benchmark.name]
    parts += [f"{asking.num_fewshot}-shot, seed {asking.seed}"] if asking.num_fewshot else []
    parts += [f"instruction {asking.paraphrase}"] if asking.paraphrase else []
    return ", ".join(parts)


def _cut(shortened: int, too_long: int) -> str:
    told = [f"{shortened} prompts with fewer examples"] if shortened else []
    told += [f"{too_long} prompts longer than the context"] if too_long else []
    return f" ({', '.join(told)})" if told else ""


def sha256(data: bytes) -> str:
    """Digest, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
