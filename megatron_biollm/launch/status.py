"""How a run stands, in one small file that scripts around the run can read without torch."""

import json
import os
import socket
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Optional

from megatron_biollm.atomic import write_json

STATUS_FILE = "status.json"
# A crashed run leaves "running": it could not say anything.
STATES = ("running", "finished", "stopped", "refused")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class RunStatus:
    """What rank 0 writes to `run_dir/status.json` at every change.

    Attributes:
        state: running; finished (train_iters reached); stopped (asked to, after a save: start the
            same command again to go on); refused (an error that a restart will not cure).
        reason: in words, for people.
        step: optimizer steps done.
        train_iters: of the whole run.
        committed_step: of the newest committed checkpoint, None before the first.
        time: of this entry, UTC, ISO 8601.
        host: of rank 0.
        job: SLURM's job id, None elsewhere.
    """

    state: str
    step: int
    train_iters: int
    committed_step: Optional[int] = None
    reason: str = ""
    time: str = field(default_factory=_now)
    host: str = field(default_factory=socket.gethostname)
    job: Optional[str] = field(default_factory=lambda: os.environ.get("SLURM_JOB_ID"))

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"state={self.state}: one of {', '.join(STATES)}")

    def write(self, run_dir: str | Path) -> None:
        """Replaces the run's status file in one step."""
        write_json(Path(run_dir) / STATUS_FILE, asdict(self))


def read_status(run_dir: str | Path) -> Optional[RunStatus]:
    """The newest entry; None where the run has written none, or none that can be read."""
    try:
        values = json.loads((Path(run_dir) / STATUS_FILE).read_text(encoding="utf-8"))
        known = {f.name for f in fields(RunStatus)}
        return RunStatus(**{name: value for name, value in values.items() if name in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return None
