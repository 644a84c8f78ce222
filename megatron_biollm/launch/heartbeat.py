"""Each rank's sign of life: a thread writes what the main thread is doing, where and since when.

A rank that is stopped, killed or lost with its node leaves its last phase and stack behind.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Optional

FOLDER = "heartbeats"


@dataclass(frozen=True)
class Heartbeat:
    """Attributes:
    rank: of the process in the world.
    host, pid: where it runs.
    born: start time of the process in clock ticks since boot, 0 where unknown; a pid may be
        given to another process.
    step: optimizer steps done.
    phase: of the main thread.
    seconds: since its last sign of progress.
    progress: counts every sign of progress.
    stack: of the main thread, outermost call first.
    time: of writing, seconds since 1970 on that host.
    beat: counts the beats of this process.
    """

    rank: int
    host: str
    pid: int
    born: int
    step: int
    phase: str
    seconds: float
    progress: int
    stack: list[str] = field(default_factory=list)
    time: float = 0.0
    beat: int = 0

    @property
    def sign(self) -> tuple[str, int, int, int]:
        """Differs between any two beats, of whatever start of the run."""
        return self.host, self.pid, self.born, self.beat


class Pulse:
    """Writes a rank's heartbeat every `seconds` from a thread of its own.

    Args:
        run_dir: the run's folder.
        rank: of this process.
        seconds: between two beats.
        look: the main thread's phase: an object with step, name, since and progress.
    """

    def __init__(self, run_dir: Path, rank: int, seconds: float, look: Callable[[], Any]) -> None:
        self.path = beat_path(run_dir, rank)
        self.rank, self.seconds, self.look = rank, seconds, look
        self.main = threading.main_thread().ident
        self.born = process_birth(os.getpid())
        self.beats = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Writes a last beat."""
        self._end.set()
        self._thread.join()
        self.beat()

    def beat(self) -> None:
        """Writes one beat; a disk that refuses it is not worth ending a run for."""
        self.beats += 1
        view = self.look()
        heartbeat = Heartbeat(
            rank=self.rank,
            host=socket.gethostname(),
            pid=os.getpid(),
            born=self.born,
            step=view.step,
            phase=view.name,
            seconds=round(time.monotonic() - view.since, 3),
            progress=view.progress,
            stack=stack_of(self.main),
            time=round(time.time(), 3),
            beat=self.beats,
        )
        # Replaced in one step, but not forced to disk: 256 ranks would keep a file server busy.
        temporary = self.path.with_suffix(".tmp")
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(exist_ok=True)
            temporary.write_text(json.dumps(asdict(heartbeat), indent=1), encoding="utf-8")
            temporary.replace(self.path)

    def _run(self) -> None:
        self.beat()
        while not self._end.wait(self.seconds):
            self.beat()


def beat_path(run_dir: Path, rank: int) -> Path:
    """Where a rank's heartbeat is."""
    return Path(run_dir) / FOLDER / f"rank_{rank:05d}.json"


def read_beat(run_dir: Path, rank: int) -> Optional[Heartbeat]:
    """A rank's last heartbeat, None where there is none to be read."""
    try:
        values = json.loads(beat_path(run_dir, rank).read_text(encoding="utf-8"))
        known = {f.name for f in fields(Heartbeat)}
        return Heartbeat(**{name: value for name, value in values.items() if name in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def read_beats(run_dir: Path, world_size: int) -> dict[int, Optional[Heartbeat]]:
    """Every rank's last heartbeat."""
    return {rank: read_beat(run_dir, rank) for rank in range(world_size)}


def stack_of(thread: int) -> list[str]:
    """The Python stack of a thread of this process, outermost call first, one line a call."""
    calls, frame = [], sys._current_frames().get(thread)
    while frame is not None:
        calls.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return calls[::-1]


def process_birth(pid: int) -> int:
    """Start time of a process in clock ticks since boot (proc(5)); 0 where there is no /proc."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def process_state(pid: int) -> str:
    """The letter of proc(5): R runs, S and D wait, T is stopped, Z is dead; "" if gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
