"""Which rank of a run that hangs is to blame, and what the others are doing."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Optional

from megatron_biollm.launch.heartbeat import Heartbeat, process_birth, process_state

Beats = Mapping[int, Optional[Heartbeat]]

# Files and functions that wait for other ranks, or for a device that waits for them.
_WAITING_FILES = ("/torch/distributed/", "/pipeline_parallel/p2p_communication")
_WAITING_CALLS = ("_global_mean", "_global_hash", "synchronize", "barrier", "wait")
_INNERMOST = 8
_STATES = {
    "T": "its process is stopped (SIGSTOP)",
    "t": "its process is stopped by a debugger",
    "Z": "its process is dead",
    "": "its process is dead",
    "D": "its process waits for a disk or a device",
}


@dataclass(frozen=True)
class Culprit:
    """A rank that holds up the others, and why it is thought so."""

    rank: int
    reason: str


def frozen_ranks(before: Beats, after: Beats) -> list[int]:
    """Ranks that have not written a heartbeat between two looks, some beats apart."""
    return [
        rank
        for rank, beat in after.items()
        if beat is None or (before[rank] is not None and before[rank].sign == beat.sign)
    ]


def find_culprits(beats: Beats, frozen: list[int]) -> list[Culprit]:
    """The ranks that do not live any more; else those that others wait for."""
    if frozen:
        return [Culprit(rank, _why_frozen(beats[rank])) for rank in frozen]
    busy = [beat for beat in beats.values() if not waits_for_others(beat.stack)]
    if busy:
        last = min((beat.step, beat.progress) for beat in busy)
        return [
            Culprit(beat.rank, "it waits for no other rank, and makes no progress")
            for beat in busy
            if (beat.step, beat.progress) == last
        ]
    last = min((beat.step, beat.progress) for beat in beats.values())
    behind = [b.rank for b in beats.values() if (b.step, b.progress) == last]
    if len(behind) == len(beats):
        return []
    return [Culprit(rank, "all ranks wait in a collective, and it is behind") for rank in behind]


def waits_for_others(stack: list[str]) -> bool:
    """Whether the innermost calls wait for other ranks."""
    return any(
        any(part in call for part in _WAITING_FILES) or call.rpartition(" ")[2] in _WAITING_CALLS
        for call in stack[-_INNERMOST:]
    )


def is_here(beat: Optional[Heartbeat]) -> bool:
    """Whether the very process that wrote it is one of this host and still there."""
    return (
        beat is not None
        and beat.host == socket.gethostname()
        and beat.born > 0
        and process_birth(beat.pid) == beat.born
    )


def _why_frozen(beat: Optional[Heartbeat]) -> str:
    if beat is None:
        return "it has never given a sign of life"
    if beat.host != socket.gethostname():
        return f"no sign of life: its process or the host {beat.host} is stopped or dead"
    state = process_state(beat.pid) if is_here(beat) else ""
    return f"no sign of life: {_STATES.get(state, 'its process lives, but writes nothing')}"


def hang_text(beats: Beats, culprits: list[Culprit], noticed: str) -> str:
    """The report: who is to blame, then every rank's phase, then every rank's stack."""
    lines = [noticed, "", *culprit_lines(beats, culprits), "", "rank    step  phase"]
    for rank, beat in beats.items():
        lines.append(f"{rank:>4} {beat.step:>7}  {_phase(beat)}" if beat else f"{rank:>4}       -")
    for rank in sorted(beats, key=lambda rank: rank not in {c.rank for c in culprits}):
        if (beat := beats[rank]) is not None:
            lines += ["", f"stack of rank {rank} at {_clock(beat.time)}, innermost call last:"]
            lines += [f"  {call}" for call in beat.stack]
    return "\n".join(lines) + "\n"


def culprit_lines(beats: Beats, culprits: list[Culprit]) -> list[str]:
    """One line a culprit."""
    if not culprits:
        return ["no rank is behind the others: the network, or collectives that do not match"]
    return [
        f"rank {c.rank}{_where(beats[c.rank])}: {c.reason}"
        + (f"; last seen after step {beats[c.rank].step}, {_phase(beats[c.rank])}" if beats[c.rank]
           else "")
        for c in culprits
    ]  # fmt: skip


def write_report(run_dir: Path, text: str) -> Path:
    """Writes `logs/hang_<UTC time>.txt`; gives its path."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    path = Path(run_dir) / "logs" / f"hang_{now}.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _where(beat: Optional[Heartbeat]) -> str:
    return f" (pid {beat.pid} on {beat.host})" if beat else ""


def _phase(beat: Heartbeat) -> str:
    return f"in phase {beat.phase!r} for {beat.seconds:.0f} s"


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
