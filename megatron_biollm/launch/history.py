"""What became of a run's starts: `run_dir/launch.jsonl`, one line per event, only appended to.

Events: `start` and `end` of an attempt (one torchrun over all nodes), `stop` (nothing starts any
more) and `clear` (a person says that starting makes sense again).
"""

import json
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Optional

from megatron_biollm.launch.status import read_status

HISTORY = "launch.jsonl"
# Names that the checkpoint room gives; it imports torch, and this must answer in a batch shell.
STEP_FOLDER, MARKER = re.compile(r"step_(\d{8,})"), "COMMITTED"

Event = dict[str, Any]


@dataclass(frozen=True)
class History:
    """Events since the last `clear`, oldest first."""

    events: list[Event]

    def of_kind(self, kind: str) -> list[Event]:
        """Events of one kind, oldest first."""
        return [event for event in self.events if event.get("event") == kind]

    @property
    def stop(self) -> Optional[Event]:
        """Why nothing may start any more; None while it may."""
        stops = self.of_kind("stop")
        return stops[-1] if stops else None

    @property
    def last_start(self) -> Optional[Event]:
        """The newest attempt."""
        starts = self.of_kind("start")
        return starts[-1] if starts else None

    def fruitless(self, committed_step: Optional[int]) -> list[Event]:
        """The newest starts in a row that found the checkpoint that is still the newest one."""
        found = []
        for start in reversed(self.of_kind("start")):
            if start.get("committed_step") != committed_step:
                break
            found.insert(0, start)
        return found

    def blamed(self) -> dict[str, str]:
        """Nodes that attempts failed on, and how, the newest last."""
        nodes: dict[str, str] = {}
        for end in self.of_kind("end"):
            for node, reason in end.get("blamed", {}).items():
                nodes.pop(node, None)
                nodes[node] = f"{reason} in {end.get('attempt')}"
        return nodes


def read_history(run_dir: str | Path) -> History:
    """The events that count; lines torn by a full disk or a killed writer are passed over."""
    events: list[Event] = []
    try:
        lines = (Path(run_dir) / HISTORY).read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            events = [] if event.get("event") == "clear" else [*events, event]
    return History(events)


def record(run_dir: str | Path, kind: str, **values: Any) -> None:
    """Adds one event; a single write, so that two writers do not mix their lines."""
    event = {"event": kind, "time": now(), **values}
    descriptor = os.open(Path(run_dir) / HISTORY, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, f"{json.dumps(event)}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def now() -> str:
    """UTC, ISO 8601, to the second, as in status.json."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def committed_step(run_dir: str | Path) -> Optional[int]:
    """The step of the newest committed checkpoint, None without one.

    The folders say it; where there are none (checkpoints kept elsewhere), status.json.
    """
    folder = Path(run_dir) / "checkpoints"
    if folder.is_dir():
        return max(_committed(folder), default=None)
    status = read_status(run_dir)
    return status.committed_step if status else None


def _committed(folder: Path) -> list[int]:
    matches = ((path, STEP_FOLDER.fullmatch(path.name)) for path in folder.iterdir())
    return [int(match[1]) for path, match in matches if match and (path / MARKER).is_file()]
