"""How a run stands, on one page: for people, from the files of the run alone."""

import json
import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Optional

from megatron_biollm.launch import lock
from megatron_biollm.launch.attempt import Limits
from megatron_biollm.launch.bad_nodes import read_bad_nodes
from megatron_biollm.launch.guard import outlook
from megatron_biollm.launch.history import Event, committed_step, read_history
from megatron_biollm.launch.status import RunStatus, read_status

TAIL_BYTES = 65536
STEPS_FOR_SPEED, STARTS_SHOWN, FILES_SHOWN, LINES_SHOWN = 50, 8, 3, 6
TROUBLE = (" ERROR ", " CRITICAL ", "Traceback (most recent call last)", "error: ")


@dataclass(frozen=True)
class RunReport:
    """What there is to say.

    Attributes:
        run_dir: of the run.
        status: as the trainer last wrote it, None before that.
        committed: step of the newest committed checkpoint.
        row: newest line of metrics.jsonl.
        seconds_left: by the median of the last steps' times; None where it is unknown.
        holder: of the lock.
        starts: attempts since the last clear, each with its end if it had one.
        bad: nodes with reasons, named and blamed.
        outlook: what a start would be told now.
        trouble: last lines of the logs that hold errors, by file.
    """

    run_dir: Path
    status: Optional[RunStatus]
    committed: Optional[int]
    row: dict[str, Any]
    seconds_left: Optional[float]
    holder: Optional[lock.Holder]
    starts: list[dict[str, Any]]
    bad: dict[str, str]
    outlook: str
    trouble: dict[str, list[str]]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **vars(self),
            "run_dir": str(self.run_dir),
            "status": vars(self.status) if self.status else None,
            "holder": vars(self.holder) if self.holder else None,
        }

    def lines(self) -> Iterator[str]:
        """The page."""
        yield f"run        {self.run_dir}"
        yield f"state      {self._state()}"
        yield f"committed  {'nothing yet' if self.committed is None else f'step {self.committed}'}"
        if self.row:
            yield f"newest     {_describe_row(self.row)}"
        if self.seconds_left is not None:
            yield f"time left  {timedelta(seconds=round(self.seconds_left))} of training"
        yield f"held by    {self.holder.describe() if self.holder else 'nobody'}"
        yield f"next start {self.outlook}"
        if self.starts:
            yield f"starts     {len(self.starts)} since the last clear"
            yield from (f"  {_describe_start(start)}" for start in self.starts[-STARTS_SHOWN:])
        if self.bad:
            yield "bad nodes"
            yield from (f"  {node}: {reason}" for node, reason in self.bad.items())
        for name, lines in self.trouble.items():
            yield f"from {name}"
            yield from (f"  {line}" for line in lines)

    def _state(self) -> str:
        if self.status is None:
            return "not started: no status.json"
        status = self.status
        where = f"job {status.job} on {status.host}" if status.job else f"on {status.host}"
        reason = f": {status.reason}" if status.reason else ""
        return (
            f"{status.state}{reason}, step {status.step}/{status.train_iters}, "
            f"{where}, {status.time}"
        )


def report_run(run_dir: Path, limits: Limits) -> RunReport:
    """Gathers what the run's files say."""
    history, status = read_history(run_dir), read_status(run_dir)
    rows = _newest_rows(run_dir / "metrics.jsonl")
    row = rows[-1] if rows else {}
    return RunReport(
        run_dir=run_dir,
        status=status,
        committed=committed_step(run_dir),
        row=row,
        seconds_left=_seconds_left(rows, status),
        holder=lock.holder_of(run_dir),
        starts=_with_ends(history.events),
        bad={**history.blamed(), **read_bad_nodes(run_dir)},
        outlook=_in_words(run_dir, limits),
        trouble=dict(_trouble(run_dir, history.last_start)),
    )


def tail(path: Path) -> list[str]:
    """The last lines of a file of any size, without one that is cut."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return lines[1:] if size > TAIL_BYTES else lines


def _in_words(run_dir: Path, limits: Limits) -> str:
    decision = outlook(run_dir, limits)
    return f"{decision.action}: {decision.reason}"


def _newest_rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in tail(path):
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in rows if isinstance(row, dict) and "step" in row]


def _seconds_left(rows: list[dict[str, Any]], status: Optional[RunStatus]) -> Optional[float]:
    times = [row["step_time_s"] for row in rows[-STEPS_FOR_SPEED:] if row.get("step_time_s")]
    if not times or status is None:
        return None
    return max(0, status.train_iters - rows[-1]["step"]) * statistics.median(times)


def _with_ends(events: list[Event]) -> list[dict[str, Any]]:
    ends = {event.get("attempt"): event for event in events if event.get("event") == "end"}
    starts = [event for event in events if event.get("event") == "start"]
    return [{**start, "end": ends.get(start.get("attempt"))} for start in starts]


def _trouble(run_dir: Path, start: Optional[Event]) -> Iterator[tuple[str, list[str]]]:
    """Nodes of the newest attempt, then ranks, whose last lines tell of an error."""
    logs = run_dir / "logs"
    attempt = logs / "slurm" / str((start or {}).get("attempt"))
    found = 0
    for path in [*sorted(attempt.glob("node_*.log")), *sorted(logs.glob("rank_*.log"))]:
        lines = [line for line in tail(path) if line.strip()]
        if found == FILES_SHOWN or not any(sign in line for line in lines for sign in TROUBLE):
            continue
        found += 1
        yield str(path.relative_to(run_dir)), lines[-LINES_SHOWN:]


def _describe_row(row: dict[str, Any]) -> str:
    loss = row.get("loss")
    parts = [f"step {row['step']}", f"loss {loss:.4f}" if loss is not None else ""]
    if row.get("tokens_per_second"):
        parts.append(f"{row['tokens_per_second']:,.0f} tokens/s")
    return ", ".join(part for part in parts if part)


def _describe_start(start: dict[str, Any]) -> str:
    step, end = start.get("committed_step"), start["end"]
    after = "from the beginning" if step is None else f"after step {step}"
    how = f"{end.get('action')}: {end.get('reason')}" if end else "no end recorded"
    return f"{start.get('time')} {start.get('attempt')} {after}; {how}"
