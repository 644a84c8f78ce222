"""Where the time goes from the launch of a run's process to the end of its first step."""

import json
import os
import time
from pathlib import Path
from typing import Any

from megatron_biollm.log import get_logger
from megatron_biollm.training.state import TrainState

STARTUP_FILE = "startup.json"
logger = get_logger(__name__)


class Startup:
    """A clock that began when the process was launched; a hook that tells of it after one step.

    `logs/startup.json` of the run has the parts in seconds, in their order, and their sum as
    `total`. Under torchrun the clock begins with torchrun itself, whose part is named after it.
    Rank 0 tells; the parts are its own.
    """

    def __init__(self, run_path: Path) -> None:
        self.path = run_path / "logs" / STARTUP_FILE
        self.parts: dict[str, float] = {}
        self._last = now = _since_boot()
        own = process_start(os.getpid())
        if own is None:  # not Linux
            return
        launcher = process_start(os.getppid()) if "TORCHELASTIC_RUN_ID" in os.environ else None
        if launcher is not None:
            self.parts["torchrun"] = own - launcher
        self.parts["imports"] = now - own

    def done(self, part: str) -> None:
        """What has passed since the last part was done was `part`."""
        now = _since_boot()
        self.parts[part] = self.parts.get(part, 0.0) + now - self._last
        self._last = now

    def __call__(self, state: TrainState, row: dict[str, Any]) -> None:
        """After the first step of the process, and on rank 0: one line and the file."""
        if "first step" in self.parts:
            return
        self.done("first step")
        if int(os.environ.get("RANK", 0)) != 0:
            return
        total = sum(self.parts.values())
        told = ", ".join(f"{name} {seconds:.2f}" for name, seconds in self.parts.items())
        logger.info("the first step was done %.1f s after launch (%s)", total, told)
        try:
            self.path.write_text(json.dumps(self.parts | {"total": total}, indent=1) + "\n")
        except OSError as error:
            logger.warning("%s cannot be written (%s)", self.path, error.strerror)


def process_start(pid: int) -> float | None:
    """When a process was launched, in seconds since boot, to 10 ms; None where /proc is not.

    Field 22 of /proc/PID/stat (proc_pid_stat(5)).
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the command in brackets, which may hold anything.
    return int(text.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


def _since_boot() -> float:
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
