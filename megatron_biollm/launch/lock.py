"""`run_dir/lock.json`: which job may write into the run, so that no two train it at once."""

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional

from megatron_biollm.atomic import temporary_name

LOCK = "lock.json"
# A holder without a job says that it lives by touching the file.
STALE_S = 180.0


@dataclass(frozen=True)
class Holder:
    """Who trains the run.

    Attributes:
        attempt: name of the attempt.
        job: SLURM's job id; None without SLURM.
        host: of the process that holds the lock.
        pid: of that process, on that host.
    """

    attempt: str
    job: Optional[str] = None
    host: str = ""
    pid: int = 0

    def describe(self) -> str:
        """For messages."""
        if self.job is not None:
            return f"job {self.job} (attempt {self.attempt})"
        return f"process {self.pid} on {self.host}"


def this_process(attempt: str) -> Holder:
    """The holder of a start without SLURM."""
    return Holder(attempt, None, socket.gethostname(), os.getpid())


def holder_of(run_dir: str | Path) -> Optional[Holder]:
    """Who holds the run's lock, alive or not; None if nobody does."""
    return _read(Path(run_dir) / LOCK)


def take(run_dir: str | Path, holder: Holder, running: Optional[Collection[str]]) -> Holder:
    """Takes the lock if it is free, or its holder is dead.

    Args:
        run_dir: of the run.
        holder: who wants it.
        running: ids of the jobs that SLURM has running; None where SLURM does not answer, and
            then a job that holds the lock is taken for alive.

    Returns:
        Who holds it now: `holder`, or the one that was there before.
    """
    path = Path(run_dir) / LOCK
    for _ in range(3):  # others may come and go meanwhile
        if _create(path, holder):
            return holder
        present = holder_of(run_dir)
        if present == holder:
            return holder
        if present is not None and is_alive(path, present, holder, running):
            return present
        _remove(path, present)
    return holder_of(run_dir) or Holder("unknown", None, "unknown host")


def release(run_dir: str | Path, attempt: str) -> None:
    """Gives the lock back, if the attempt holds it."""
    present = holder_of(run_dir)
    if present is not None and present.attempt == attempt:
        (Path(run_dir) / LOCK).unlink(missing_ok=True)


def touch(run_dir: str | Path) -> None:
    """Says that the holder lives."""
    with contextlib.suppress(OSError):
        os.utime(Path(run_dir) / LOCK)


def running_jobs() -> Optional[set[str]]:
    """Ids of the jobs that have nodes now, by squeue; None where it does not answer."""
    states = "RUNNING,COMPLETING,SUSPENDED,STOPPED,CONFIGURING,SIGNALING,STAGE_OUT"
    command = ["squeue", "--noheader", "--format=%A", f"--states={states}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return set(done.stdout.split()) if done.returncode == 0 else None


def is_alive(
    path: Path, present: Holder, asking: Holder, running: Optional[Collection[str]]
) -> bool:
    """Whether the holder of the lock at `path` still trains, as far as `asking` can find out."""
    if present.job is not None:
        # One job never runs twice at once: an older attempt of the asking job is over.
        return present.job != asking.job and (running is None or present.job in running)
    if present.host == socket.gethostname():
        return Path(f"/proc/{present.pid}").exists()
    try:
        return time.time() - path.stat().st_mtime < STALE_S
    except OSError:
        return False


def _create(path: Path, holder: Holder) -> bool:
    """Makes the file with its contents, unless there is one."""
    temporary = temporary_name(path)
    temporary.write_text(json.dumps(asdict(holder)), encoding="utf-8")
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def _remove(path: Path, expected: Optional[Holder]) -> None:
    """Removes a dead holder's lock, and puts it back if it was another one's by then."""
    aside = temporary_name(path)
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    if _read(aside) != expected:
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink()


def _read(path: Path) -> Optional[Holder]:
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
