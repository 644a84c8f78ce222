"""Runs a plan: trains, brings each fault upon the run, waits until it has got over it, judges."""

import contextlib
import hashlib
import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests import slurm
from tests.integration.recipe import layout, write_inputs
from tests.soak.disk import SmallDisk
from tests.soak.faults import POLL_S, Faults, Strike, end_all, first_words
from tests.soak.jobs import Job, SlurmJob, TorchrunJob, hasten, train_undisturbed
from tests.soak.plan import SAVE_INTERVAL, Fault, RunPlan
from tests.soak.verdict import RunVerdict, judge_run
from tests.soak.view import RunView

T = TypeVar("T")
# Where the policy is to stop, a person starts the run again.
STOPS_BY_POLICY = ("sigterm", "disk_full")
MOST_STARTS_BY_HAND = 10
REWIND = ["stability.rewind_margin=2", "stability.jump_before=1", "stability.jump_after=1"]


class Stalled(RuntimeError):
    """The run shows no sign of progress any more, or nobody can start it again."""


@dataclass(frozen=True)
class Settings:
    """How patient a soak is; a busy machine needs more.

    Attributes:
        pace: seconds that each step takes longer.
        patience: seconds without any change before a run is given up.
        hang_minutes: after which the watchdog takes a step for hung.
        slow_minutes: the same for start-up and checkpoints.
    """

    pace: float = 0.25
    patience: float = 900.0
    hang_minutes: float = 0.5
    slow_minutes: float = 4.0


@dataclass
class FaultResult:
    """One row of the table."""

    number: int
    run: int
    kind: str
    moment: str
    victim: str
    step: int
    observed: str
    seconds: float | None
    verdict: str


@dataclass
class RunResult:
    """A run with what became of its faults."""

    plan: RunPlan
    verdict: RunVerdict
    faults: list[FaultResult] = field(default_factory=list)
    starts_by_hand: list[str] = field(default_factory=list)
    starts: int = 0
    seconds: float = 0.0


class Soak:
    """Runs of one corpus in one folder.

    Args:
        folder: for everything; left behind.
        cluster: a SLURM, None for plain torchrun.
        settings: how patient.
    """

    def __init__(self, folder: Path, cluster: slurm.Cluster | None, settings: Settings) -> None:
        self.folder, self.cluster, self.settings = folder, cluster, settings
        if cluster is not None:
            hasten(cluster)
        folder.mkdir(parents=True, exist_ok=True)
        self.inputs = write_inputs(folder)

    def run(self, plan: RunPlan) -> RunResult:
        """Trains one run through its faults to its end."""
        clean = self.twin(plan, "")
        poison = _poison(plan, clean)
        twin = self.twin(plan, poison) if poison else clean
        folder = self.folder / f"run_{plan.number:02}"
        shutil.rmtree(folder, ignore_errors=True)  # of a soak that was cut short
        environment = {"SOAK_PACE": str(self.settings.pace), "SOAK_POISON": poison}
        overrides = [*self._overrides(plan), *plan.options, *self._watch()]
        overrides.append(f"checkpoint.on_save_failure={plan.on_save_failure}")
        arguments = (folder / "run", overrides, environment)
        job = SlurmJob(self.cluster, *arguments) if self.cluster else TorchrunJob(*arguments)
        with _small_disk(job.run_dir / "checkpoints") as disk:
            return OneRun(plan, job, disk, self.settings).train(clean, twin)

    def twin(self, plan: RunPlan, poison: str) -> Path:
        """The folder of an undisturbed run with the same losses."""
        overrides = self._overrides(plan)
        name = hashlib.sha256("\n".join([*overrides, poison]).encode()).hexdigest()[:8]
        run_dir = self.folder / f"twin_{name}" / "run"
        if not RunView(run_dir).is_finished():
            say(f"run {plan.number}: training its twin{' with the NaN' if poison else ''}")
            train_undisturbed(run_dir, overrides, {"SOAK_POISON": poison})
        return run_dir

    def _overrides(self, plan: RunPlan) -> list[str]:
        policy = []
        if plan.on_non_finite == "rewind":
            policy = ["stability.on_non_finite=rewind", *REWIND]
        return [
            *self.inputs,
            *layout(**plan.layout),
            *policy,
            f"training.train_iters={plan.train_iters}",
            f"checkpoint.save_interval={SAVE_INTERVAL}",
            "checkpoint.keep_last=5",
        ]

    def _watch(self) -> list[str]:
        if importlib.util.find_spec("megatron_biollm.launch.watchdog") is None:
            return []  # then a SIGSTOP has nobody to notice it
        return [
            "watch.heartbeat_seconds=1",
            f"watch.hang_timeout_minutes={self.settings.hang_minutes}",
            f"watch.slow_timeout_minutes={self.settings.slow_minutes}",
        ]


class OneRun:
    """One run on its way through its faults."""

    def __init__(self, plan: RunPlan, job: Job, disk: SmallDisk | None, settings: Settings) -> None:
        self.plan, self.job, self.settings = plan, job, settings
        self.view = RunView(job.run_dir)
        self.faults = Faults(self.view, job, disk)
        self.by_hand: list[str] = []
        self.results: list[FaultResult] = []

    def train(self, clean: Path, twin: Path) -> RunResult:
        """From the first start to the verdict."""
        began, stalled = time.monotonic(), ""
        self.job.start()
        try:
            for fault in self.plan.faults:
                self.results.append(self._through(fault))
            self._wait(self._is_done)
        except Stalled as error:
            stalled = str(error)
        finally:
            self.job.end()
            end_all(self.view)
        verdict = judge_run(self.plan, self.view, clean, twin, stalled)
        say(f"run {self.plan.number}: {verdict}")
        seconds, starts = time.monotonic() - began, len(self.view.events("start"))
        return RunResult(self.plan, verdict, self.results, self.by_hand, starts, seconds)

    def _is_done(self) -> bool:
        return self.view.is_finished() and self.job.is_over()

    def _through(self, fault: Fault) -> FaultResult:
        self._wait(lambda: self.faults.is_due(fault) or self.view.is_finished(), POLL_S)
        if self.view.is_finished():
            return self._result(Strike(fault, "", 0, time.monotonic(), 0, 0, 0), "", "NOT INJECTED")
        say(f"run {self.plan.number}, step {self.view.step()}: {fault.kind} ({fault.moment})")
        by_hand, strike = len(self.by_hand), self.faults.inject(fault)
        try:
            observed = self._wait(lambda: self.faults.evidence(strike))
            self.faults.mend(strike)
            reached = max(strike.step, self.view.step())  # rows of lost steps are cut at a start
            self._wait(lambda: self.view.step() > reached)
            seconds = time.monotonic() - strike.time
            self._wait(lambda: self.view.committed() > reached or self.view.is_finished())
        except Stalled as error:
            self.faults.mend(strike)
            self.results.append(self._result(strike, str(error), "NOT RECOVERED"))
            raise
        helped = self.by_hand[by_hand:]
        verdict = "recovered"
        if observed.startswith("WRONG"):
            verdict = "WRONG"
        elif helped and fault.kind not in STOPS_BY_POLICY:
            verdict = "NEEDED A PERSON"
        return self._result(strike, observed, verdict, seconds)

    def _result(
        self, strike: Strike, observed: str, verdict: str, seconds: float | None = None
    ) -> FaultResult:
        fault = strike.fault
        result = FaultResult(
            fault.number,
            self.plan.number,
            fault.kind,
            fault.moment,
            strike.victim,
            strike.step,
            observed,
            None if seconds is None else round(seconds, 1),
            verdict,
        )
        say(f"  {result.victim}: {observed}: {verdict} after {result.seconds} s")
        return result

    def _wait(self, condition: Callable[[], T], pause: float = 0.1) -> T:
        """Until the condition holds, as long as the run gets on; gives its value.

        Raises:
            Stalled: nothing changes any more.
        """
        signs, changed, looked = None, time.monotonic(), 0.0
        while not (value := condition()):
            now = time.monotonic()
            if now - looked > 1:
                looked = now
                if (found := (self.view.signs(), len(self.by_hand))) != signs:
                    signs, changed = found, now
                self._start_again_if_over()
            if now - changed > self.settings.patience:
                raise Stalled(f"no sign of progress for {self.settings.patience:.0f} s")
            time.sleep(pause)
        return value

    def _start_again_if_over(self) -> None:
        """What a person does about a run that was stopped, by its policy or for no good reason."""
        if not self.job.is_over() or self.view.is_finished():
            return
        ends = self.view.events("end")
        if isinstance(self.job, TorchrunJob) and ends and ends[-1]["action"] == "requeue":
            self.job.start()  # whatever started it would: a service of the host
            return
        status = self.view.status()
        why = self.view.stop_reason() or (status.reason if status else "") or "no reason given"
        if len(self.by_hand) >= MOST_STARTS_BY_HAND:
            raise Stalled(f"started {len(self.by_hand)} times by hand, last after: {why}")
        self.by_hand.append(first_words(why))
        say(f"  started by hand, stopped by: {why[:160]}")
        if self.faults.disk:
            self.faults.disk.free()
        self.job.clear()
        self.job.start()


def _poison(plan: RunPlan, clean: Path) -> str:
    """For the program: the rank, and the hash of the batch that its NaN comes with."""
    if plan.poison is None:
        return ""
    row = next(row for row in RunView(clean).rows() if row["step"] == plan.poison.step)
    return f"{plan.poison.rank} {row['batch_hash']}"


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[SmallDisk | None]:
    if os.geteuid() != 0:
        yield None
        return
    with SmallDisk(folder) as disk:
        yield disk


def say(text: str) -> None:
    """Progress, for people."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
