"""Whether a run came to its end with the losses that its policy promises, and no sample lost."""

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.recipe import ROOT
from tests.soak.plan import RunPlan
from tests.soak.view import Row, RunView

VERIFY = ROOT / "tools" / "verify_run.py"
BATCH = 16  # of tests/integration/recipe.py


@dataclass
class RunVerdict:
    """Attributes:
    state: of status.json.
    step: that the run has come to.
    loss: of the last step.
    twin_loss: the same of the undisturbed run.
    equal: what was equal to the bit.
    ledger: what tools/verify_run.py --rehash all found.
    problems: what was not as promised; none in a good run.
    """

    state: str
    step: int
    loss: float | None
    twin_loss: float | None
    equal: str
    ledger: str
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        good = "; ".join(self.problems) or "as promised"
        return f"{self.state} at step {self.step}, loss {self.loss}, {self.equal}: {good}"


def judge_run(plan: RunPlan, view: RunView, clean: Path, twin: Path, stalled: str) -> RunVerdict:
    """Compares a run with its undisturbed twins.

    Args:
        plan: of the run.
        view: of it.
        clean: a run without any fault.
        twin: the same; with the same NaN if the run got one.
        stalled: why the run was given up, if it was.
    """
    status, rows = view.status(), view.rows()
    state, step = (status.state, status.step) if status else ("nothing", 0)
    problems = [stalled] if stalled else []
    if state != "finished" or step != plan.train_iters:
        problems.append(f"{state} at step {step} of {plan.train_iters}")
    expected = RunView(twin).rows()
    differences = compare(rows, expected, plan.train_iters)
    equal = f"all {plan.train_iters} steps, to the undisturbed run"
    if plan.poison is not None:
        equal = f"all {plan.train_iters} steps, to a run with the NaN alone"
        differences += compare(rows, RunView(clean).rows(), _last_clean(plan))
    if differences:
        equal = "no"
    problems += differences
    said, found = _balance(plan, view)
    problems += found
    problems += [f"{folder.name} is left" for folder in _leftovers(view)]
    return RunVerdict(state, step, _loss(rows), _loss(expected), equal, said, problems)


def compare(rows: list[Row], expected: list[Row], last_step: int) -> list[str]:
    """What differs in steps 1 to `last_step`: loss, gradient norm, batch, to the bit."""
    found, wanted = _by_step(rows), _by_step(expected)
    problems = []
    if len(found) != len(rows):
        problems.append("a step appears twice")
    different = [s for s in range(1, last_step + 1) if found.get(s) != wanted.get(s)]
    if different:
        step = different[0]
        problems.append(
            f"{len(different)} steps differ from the twin's, the first is {step}: "
            f"{found.get(step)} for {wanted.get(step)}"
        )
    return problems


def _by_step(rows: list[Row]) -> dict[int, tuple[object, ...]]:
    names = ("loss", "grad_norm", "batch_hash", "consumed_samples", "skipped")
    return {row["step"]: tuple(row.get(name) for name in names) for row in rows}


def _last_clean(plan: RunPlan) -> int:
    """The last step that a NaN leaves as it is; a rewind jumps over the batch before it too."""
    return plan.poison.step - (1 if plan.on_non_finite == "skip" else 2)


def _balance(plan: RunPlan, view: RunView) -> tuple[str, list[str]]:
    """What tools/verify_run.py says of every batch, and what is wrong with it."""
    command = [sys.executable, VERIFY, view.run_dir, "--rehash", "all", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    try:
        ledger = json.loads(done.stdout)
    except ValueError:
        return "no books", [done.stderr[-500:]]
    found, expected = (ledger["skipped"], ledger["jumped"]), _left_out(plan)
    problems = list(ledger["problems"])
    if found != expected:
        problems.append(f"skipped and jumped {found}, and not {expected}")
    said = f"{len(ledger['rehashed'])} batches read again"
    for name, ranges in zip(("skipped", "jumped"), found, strict=True):
        said += f", {_count(ranges)} samples {name}" if ranges else ""
    return f"{said}: {'DO NOT BALANCE' if problems else 'balance'}", problems


def _left_out(plan: RunPlan) -> tuple[list[list[int]], list[list[int]]]:
    """Positions in the stream that the policy skips, and that it jumps over."""
    if plan.poison is None:
        return [], []
    first = (plan.poison.step - 1) * BATCH
    if plan.on_non_finite == "skip":
        return [[first, first + BATCH]], []
    return [], [[first - BATCH, first + 2 * BATCH]]


def _leftovers(view: RunView) -> list[Path]:
    return sorted(view.checkpoints.glob("step_*.partial"))


def _count(ranges: list[list[int]]) -> int:
    return sum(end - first for first, end in ranges)


def _loss(rows: list[Row]) -> float | None:
    loss = rows[-1]["loss"] if rows else None
    return loss if loss is None or math.isfinite(loss) else None
