"""What can be seen of a run from outside: its files and its processes."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from megatron_biollm.launch.history import Event, committed_step, read_history
from megatron_biollm.launch.status import RunStatus, read_status

Row = dict[str, Any]


class RunView:
    """A run folder, and the ranks that train in it."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir, self.checkpoints = run_dir, run_dir / "checkpoints"

    def rows(self) -> list[Row]:
        """The rows of metrics.jsonl, without one that is just being written."""
        return list(_json_lines(self.run_dir / "metrics.jsonl"))

    def step(self) -> int:
        """The last step that was logged, 0 before the first."""
        rows = self.rows()
        return rows[-1]["step"] if rows else 0

    def committed(self) -> int:
        """Step of the newest committed checkpoint, damaged or not; 0 without one."""
        with contextlib.suppress(OSError):  # a folder that is just being renamed
            return committed_step(self.run_dir) or 0
        return 0

    def folders(self) -> list[Path]:
        """Committed checkpoints, newest first."""
        names = sorted(self.checkpoints.glob("step_" + "[0-9]" * 8), reverse=True)
        return [folder for folder in names if (folder / "COMMITTED").exists()]

    def is_saving(self) -> bool:
        """Whether a checkpoint is being written now."""
        partial = self.checkpoints.glob("step_*.partial")
        return any(not path.name.endswith(".old.partial") for path in partial)

    def events(self, kind: str) -> list[Event]:
        """Every event of the launcher of one kind, those before a `clear` too."""
        lines = _json_lines(self.run_dir / "launch.jsonl")
        return [event for event in lines if event.get("event") == kind]

    def stop_reason(self) -> str:
        """Why nothing may start any more, if so."""
        stop = read_history(self.run_dir).stop
        return str(stop.get("reason")) if stop else ""

    def status(self) -> RunStatus | None:
        return read_status(self.run_dir)

    def is_finished(self) -> bool:
        status = self.status()
        return status is not None and status.state == "finished"

    def log(self, start: int = 0) -> str:
        """What rank 0 has said, from a byte of its log on."""
        try:
            return (self._log().read_bytes()[start:]).decode(errors="replace")
        except OSError:
            return ""

    def log_size(self) -> int:
        return self._log().stat().st_size if self._log().exists() else 0

    def _log(self) -> Path:
        return self.run_dir / "logs" / "rank_00000.log"

    def hang_reports(self) -> set[Path]:
        return set((self.run_dir / "logs").glob("hang_*.txt"))

    def incidents(self) -> list[Row]:
        return list(_json_lines(self.run_dir / "incidents.jsonl"))

    def signs(self) -> tuple:
        """Changes whenever the run gets on."""
        beats = []
        for path in sorted(self.run_dir.glob("heartbeats/rank_*.json")):
            with contextlib.suppress(OSError, ValueError):
                beat = json.loads(path.read_text())
                beats.append((beat.get("pid"), beat.get("progress")))
        logs = [path.stat().st_size for path in sorted(self.run_dir.glob("logs/rank_*.log"))]
        return self.step(), self.committed(), len(self.events("start")), tuple(beats), tuple(logs)

    def ranks(self) -> dict[int, psutil.Process]:
        """The living processes that torchrun has started, by rank."""
        found: dict[int, psutil.Process] = {}
        for process in self.processes():
            with contextlib.suppress(psutil.Error, AttributeError):  # no parent any more
                if "torch.distributed.run" in process.parent().cmdline():
                    found[int(process.environ()["RANK"])] = process
        return found

    def processes(self) -> list[psutil.Process]:
        """The ranks and what they have forked, which may outlive them."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if self._belongs(process) and "RANK" in process.environ():
                    found.append(process)
        return found

    def _belongs(self, process: psutil.Process) -> bool:
        words = " ".join(process.cmdline())
        return f"{self.run_dir}/" in words or words.endswith(f"run_dir={self.run_dir}")

    def wait_until_dead(self, seconds: float = 120.0) -> bool:
        """Waits until no rank is left."""
        deadline = time.monotonic() + seconds
        while self.ranks():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True


def _json_lines(path: Path) -> Iterator[Row]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        with contextlib.suppress(ValueError):
            if isinstance(row := json.loads(line), dict):
                yield row
