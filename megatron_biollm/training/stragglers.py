"""Which rank slows the others down: every rank's parts of a step, compared now and then.

Ranks wait for each other in every step, so that all of them seem equally slow. What differs is
what each does itself:

- data: seconds in which the rank waits for its own batches;
- compute: on the CPU, seconds in which the main thread works; what is left of the step it waits
  for others. On a GPU the host cannot tell the two apart, and this part is absent;
- probe: seconds of the same small matrix products on every device, which a device that is hot,
  throttled or shared takes longer for.
"""

import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median_low
from typing import Any, Optional, Protocol

import torch

from megatron_biollm.device.runtime import Device
from megatron_biollm.log import get_logger
from megatron_biollm.rows import RowFile
from megatron_biollm.training.phases import Phases
from megatron_biollm.training.state import TrainState

COMPARED = ("data", "compute", "probe")
logger = get_logger(__name__)


class StragglerConfig(Protocol):
    """How often ranks are compared, and from which share of a step on one is named."""

    straggler_interval: int
    straggler_threshold: float


@dataclass(frozen=True)
class RankTimes:
    """Seconds of one rank, averaged over the steps of an interval.

    Attributes:
        rank, host: who.
        stage: pipeline rank; ranks of one stage have the same work.
        step: a whole step.
        data, compute, probe: as above; None where it cannot be told.
        wait: what is left of the step, for others and for the disk.
    """

    rank: int
    host: str
    stage: int
    step: float
    data: float
    compute: Optional[float]
    probe: float
    wait: Optional[float]


@dataclass(frozen=True)
class Straggler:
    """Attributes:
    rank, host: who.
    part: in which it is slow.
    seconds: it takes for that.
    median: of the ranks with the same work.
    share: of a step that the others lose to it; of the probe, by how much it is slower.
    """

    rank: int
    host: str
    part: str
    seconds: float
    median: float
    share: float

    def __str__(self) -> str:
        return (
            f"rank {self.rank} on {self.host} is slow in {self.part}: {self.seconds:.4g} s against "
            f"{self.median:.4g} s at the median ({self.share:.0%} of a "
            f"{'probe' if self.part == 'probe' else 'step'})"
        )


class StragglerReport:
    """A hook: compares the ranks every `interval` steps, names those that are slow in the log, and
    writes a row to `logs/stragglers.jsonl`.

    Args:
        run_dir: the run's folder.
        phases: of this rank.
        device: of this rank.
        stage: this rank's place in the pipeline.
        control: gloo group of all ranks.
        config: how often, and which share of a step names a rank.
    """

    def __init__(
        self,
        run_dir: Path,
        phases: Phases,
        device: Device,
        stage: int,
        control: torch.distributed.ProcessGroup,
        config: StragglerConfig,
    ) -> None:
        path = Path(run_dir) / "logs" / "stragglers.jsonl"
        self.rows = RowFile(path) if control.rank() == 0 else None
        self.phases, self.device, self.stage = phases, device, stage
        self.control, self.config = control, config
        self.steps, self.warm = 0, False
        self.seconds = 0.0

    def __call__(self, state: TrainState, row: dict[str, Any]) -> None:
        if not self.warm:  # the first step of a process is not like the others
            self.warm = True
            self.phases.take()
            return
        self.steps += 1
        self.seconds += row["step_time_s"]
        if state.step % self.config.straggler_interval == 0:
            self._compare(state.step)

    def _compare(self, step: int) -> None:
        rank = self.control.rank()
        gathered = [None] * self.control.size() if rank == 0 else None
        torch.distributed.gather_object(self._mine(), gathered, dst=0, group=self.control)
        if rank == 0:
            self._tell(step, gathered)
        self.steps, self.seconds = 0, 0.0

    def _mine(self) -> RankTimes:
        parts = self.phases.take()
        step = self.seconds / self.steps
        data = parts["data"].seconds / self.steps
        compute = wait = None
        if self.device.kind == "cpu":
            work = (parts[name].cpu_seconds for name in ("forward and backward", "optimizer"))
            compute = sum(work) / self.steps
            wait = max(0.0, step - data - compute)
        probe = self.device.probe_seconds()
        return RankTimes(
            self.control.rank(), socket.gethostname(), self.stage, step, data, compute, probe, wait
        )

    def _tell(self, step: int, ranks: list[RankTimes]) -> None:
        slow = find_stragglers(ranks, self.config.straggler_threshold)
        for straggler in slow:
            logger.warning("step %d: %s", step, straggler)
        row = {"step": step, "steps": self.steps, "slow": [asdict(s) for s in slow]}
        row["step_time"] = _summary(ranks, "step")
        row |= {part: _summary(ranks, part) for part in (*COMPARED, "wait")}
        if slow:
            row["ranks"] = [asdict(times) for times in ranks]
        self.rows.append(row)


def find_stragglers(ranks: list[RankTimes], threshold: float) -> list[Straggler]:
    """For each part the slowest rank, if the others lose more than `threshold` of a step to it."""
    found = []
    for part in COMPARED:
        compared = [s for times in ranks if (s := _against_median(times, ranks, part)) is not None]
        worst = max(compared, key=lambda straggler: straggler.share, default=None)
        if worst is not None and worst.share > threshold:
            found.append(worst)
    return found


def _against_median(times: RankTimes, ranks: list[RankTimes], part: str) -> Optional[Straggler]:
    seconds = getattr(times, part)
    if seconds is None:
        return None
    # A probe is the same everywhere; a stage of a pipeline has work of its own.
    peers = [other for other in ranks if part == "probe" or other.stage == times.stage]
    peers = peers if len(peers) > 1 else ranks
    median = median_low(getattr(other, part) for other in peers)
    whole = median if part == "probe" else times.step
    return Straggler(times.rank, times.host, part, seconds, median, (seconds - median) / whole)


def _summary(ranks: list[RankTimes], part: str) -> Optional[dict[str, Any]]:
    known = [times for times in ranks if getattr(times, part) is not None]
    if not known:
        return None
    slowest = max(known, key=lambda times: getattr(times, part))
    return {
        "median": round(median_low(getattr(times, part) for times in known), 6),
        "largest": round(getattr(slowest, part), 6),
        "rank": slowest.rank,
        "host": slowest.host,
    }
