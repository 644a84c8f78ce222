"""What SLURM's programs have said, read from the files that the batch script put it in.

A guard inside a container has no SLURM; so the script asks and the guard reads.
"""

import re
from pathlib import Path
from typing import Optional

FATES = ("running", "timeout", "cancelled", "requeued")


def read_names(path: Optional[Path]) -> Optional[tuple[str, ...]]:
    """The words of a file, each once and in order; None where it could not be written."""
    if path is None or not path.is_file():
        return None
    return tuple(dict.fromkeys(path.read_text(encoding="utf-8").split()))


def job_fate(path: Optional[Path], restart: int) -> str:
    """What has become of a job while its script still runs, by `scontrol --oneliner show job`.

    Args:
        path: of the answer; None or missing where SLURM did not answer.
        restart: which start of the job this is, 0 for the first.

    Returns:
        One of FATES. A job that is over is COMPLETING until its script has ended. What cannot be
        told is taken for running: the script then goes on, and SLURM has the last word.
    """
    try:
        text = path.read_text(encoding="utf-8") if path is not None else ""
    except OSError:
        text = ""
    record = dict(re.findall(r"(\w+)=(\S*)", text))
    restarts = record.get("Restarts", "0")
    if restarts.isdigit() and int(restarts) > restart:
        return "requeued"
    if record.get("JobState", "RUNNING") == "RUNNING":
        return "running"
    return "timeout" if record.get("Reason") == "TimeLimit" else "cancelled"


def restart_of(attempt: str) -> int:
    """The restart in an attempt's name `<job>_<restart>...`."""
    parts = attempt.split("_")
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0
