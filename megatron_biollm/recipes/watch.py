"""Scores the checkpoints of a run as they are committed, in a job beside the training."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.store import problem_on_any_rank
from megatron_biollm.config import UserError
from megatron_biollm.evaluation.curve import CURVE, append_curve, curve_rows, read_curve
from megatron_biollm.evaluation.plan import Plan, prepare
from megatron_biollm.launch.status import read_status
from megatron_biollm.log import get_logger
from megatron_biollm.recipes.evaluate import LiveScorer, live
from megatron_biollm.recipes.evaluate_steps import Where, consumed_tokens, report
from megatron_biollm.recipes.generate import of_rank_0

logger = get_logger(__name__)


def watch(run: Path, plan: Plan, where: Where, poll_s: float = 60.0, follow: bool = True) -> None:
    """Scores each committed checkpoint that the curve lacks, oldest first.

    Each gets a folder of its own below `where.output`, and its rows in `curve.jsonl` there. Ends
    when the run has ended and all is scored; a job that is cut off is started anew.

    Args:
        run: folder of the run; its training may not have begun.
        poll_s: between two looks.
        follow: False scores what is there now, and ends.

    Raises:
        UserError: as `evaluate_checkpoint`. A checkpoint that is damaged, or that the run has
            removed meanwhile, is only told of.
    """
    if not follow and not verify.committed_steps(run / "checkpoints"):
        raise UserError(f"{run} holds no committed checkpoint; give the folder of a run")
    prepared = prepare(plan)
    names = [one.benchmark.name for one in prepared]
    passed: set[int] = set()
    with live(where) as scorer:
        while True:
            # Before the steps are listed: a run that ends in between has committed its last.
            ended = not follow or _has_ended(run)
            step, ended = of_rank_0(
                (_next_step(run, where.output, names, passed), ended), scorer.control
            )
            if step is not None:
                passed.add(step)
                _score(scorer, run, step, prepared)
            elif ended:
                break
            else:
                time.sleep(poll_s)
    if scorer.speaks and (where.output / CURVE).is_file():
        last = max(row["step"] for row in read_curve(where.output / CURVE))
        report(where.output / _name(last), curve=where.output / CURVE)


def _score(scorer: LiveScorer, run: Path, step: int, prepared: Sequence) -> None:
    folder, output = verify.step_folder(run / "checkpoints", step), scorer.where.output
    problem = problem_on_any_rank(folder, scorer.control)
    if problem is not None:
        logger.warning("step %d is passed over: %s", step, problem)
        return
    found = scorer.score(folder, prepared, output / _name(step))
    if found is not None:
        tokens = consumed_tokens(folder)
        append_curve(output / CURVE, curve_rows(step, tokens or 0, found.results))


def _next_step(run: Path, output: Path, names: Sequence[str], passed: set[int]) -> Optional[int]:
    """The oldest committed step that lacks a score of one of the benchmarks."""
    rows = read_curve(output / CURVE) if (output / CURVE).is_file() else []
    scored: dict[int, set[str]] = {}
    for row in rows:
        scored.setdefault(row["step"], set()).add(row["benchmark"])
    for step in verify.committed_steps(run / "checkpoints"):
        if step not in passed and not scored.get(step, set()).issuperset(names):
            return step
    return None


def _has_ended(run: Path) -> bool:
    status = read_status(run)
    return status is not None and status.state in ("finished", "refused")


def _name(step: int) -> str:
    return f"step_{step:08d}"
