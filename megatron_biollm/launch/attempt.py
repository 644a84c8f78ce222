"""What the guard speaks of: an attempt to train, how it ended, what is allowed, what follows."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from megatron_biollm.launch import lock


@dataclass(frozen=True)
class Limits:
    """What the guard allows.

    Attributes:
        max_starts: starts without a newer committed checkpoint, after which the run is stopped.
        backoff_seconds: wait before the start after a fruitless one; doubles with each.
        max_excluded: bad nodes to exclude at most.
        max_restarts: further attempts within one allocation.
    """

    max_starts: int = 3
    backoff_seconds: int = 60
    max_excluded: int = 2
    max_restarts: int = 2


@dataclass(frozen=True)
class Attempt:
    """One start of the run.

    Attributes:
        run_dir: of the run, absolute.
        name: `<job>_<restart>`, and `_<repeat>` for a repeat in the same allocation.
        train_iters: that this start would train to.
        job: SLURM's job id, None without SLURM.
        nodes: that it has.
        usable: nodes of the partition that could run it; empty where that is unknown.
    """

    run_dir: Path
    name: str
    train_iters: int
    job: Optional[str] = None
    nodes: tuple[str, ...] = ()
    usable: tuple[str, ...] = ()

    @property
    def logs(self) -> Path:
        """Where the nodes' logs of this attempt lie."""
        return self.run_dir / "logs" / "slurm" / self.name

    @property
    def repeat(self) -> int:
        """How many attempts there were before in the same allocation."""
        parts = self.name.split("_")
        return int(parts[2]) if len(parts) > 2 else 0

    @property
    def holder(self) -> lock.Holder:
        """As the lock names it."""
        return lock.Holder(self.name, self.job) if self.job else lock.this_process(self.name)


@dataclass(frozen=True)
class Ended:
    """How an attempt ended.

    Attributes:
        exit_status: of srun or torchrun.
        signalled: the script asked the run to save and stop, as its time was up.
        fate: of the job: running, timeout, cancelled (by a person), requeued (by SLURM or a
            person: it starts again by itself).
        seconds_left: until the script would have to ask the run to stop.
    """

    exit_status: int
    signalled: bool = False
    fate: str = "running"
    seconds_left: int = 0


@dataclass(frozen=True)
class Decision:
    """What a batch script does next.

    Attributes:
        action: start; again (in this allocation); requeue; leave (SLURM has requeued the job);
            stop (all is done, or as asked); refuse.
        reason: in words.
        delay_s: wait before that.
        exclude: nodes that the job must not get.
    """

    action: str
    reason: str
    delay_s: int = 0
    exclude: tuple[str, ...] = field(default=())

    def line(self) -> str:
        """For `read -r action delay exclude` in a shell."""
        return f"{self.action} {self.delay_s} {','.join(self.exclude)}".rstrip()
