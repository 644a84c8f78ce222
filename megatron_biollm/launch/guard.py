"""Whether a run may start, and what follows when an attempt has ended. Needs no torch.

A batch script asks before each attempt and after it, and does what the answer says. An attempt is
one torchrun over all nodes of the job.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Optional

from megatron_biollm.launch import lock
from megatron_biollm.launch.attempt import Attempt, Decision, Ended, Limits
from megatron_biollm.launch.bad_nodes import blame, choose_excluded, read_bad_nodes
from megatron_biollm.launch.history import Event, committed_step, read_history, record
from megatron_biollm.launch.status import read_status

STOP_FILE = "stop"
# A second attempt in the same allocation begins after this long, and only if it is worth it.
AGAIN_DELAY_S = 10
LONGEST_BACKOFF_S = 3600


def before_start(
    attempt: Attempt, limits: Limits, running: Optional[Collection[str]] = None
) -> Decision:
    """Decides whether the run may start now; if so, it holds the lock and the start is recorded.

    Args:
        attempt: that wants to start.
        limits: that hold.
        running: ids of the jobs SLURM has running; None where SLURM does not answer.
    """
    present = lock.take(attempt.run_dir, attempt.holder, running)
    if present != attempt.holder:
        return Decision("refuse", f"{attempt.run_dir} is being trained by {present.describe()}")
    decision = _reason_not_to_start(attempt, limits)
    if decision is None:
        committed = committed_step(attempt.run_dir)
        _remove_own_request(attempt.run_dir)
        record(
            attempt.run_dir,
            "start",
            attempt=attempt.name,
            nodes=list(attempt.nodes),
            committed_step=committed,
        )
        after = "from the beginning" if committed is None else f"after step {committed}"
        return Decision("start", f"attempt {attempt.name}: {after} on {_names(attempt.nodes)}")
    lock.release(attempt.run_dir, attempt.name)
    return decision


def after_end(attempt: Attempt, ended: Ended, limits: Limits) -> Decision:
    """Decides what follows an attempt, records it, and gives the lock back."""
    decision = _what_follows(attempt, ended, limits)
    status = read_status(attempt.run_dir)
    record(
        attempt.run_dir,
        "end",
        attempt=attempt.name,
        exit_status=ended.exit_status,
        signalled=ended.signalled,
        fate=ended.fate,
        state=status.state if status else None,
        committed_step=committed_step(attempt.run_dir),
        blamed=_blamed(attempt, ended),
        action=decision.action,
        reason=decision.reason,
    )
    if decision.action == "requeue":
        decision = _with_exclusions(decision, attempt, limits)
    lock.release(attempt.run_dir, attempt.name)
    return decision


def outlook(run_dir: Path, limits: Limits) -> Decision:
    """What a start would be told now; changes nothing."""
    attempt = Attempt(run_dir, "-", _train_iters(run_dir))
    present = lock.holder_of(run_dir)
    if present is not None:
        running = lock.running_jobs() if present.job else None
        if lock.is_alive(run_dir / lock.LOCK, present, attempt.holder, running):
            return Decision("leave", f"is being trained by {present.describe()}")
    found = _reason_not_to_start(attempt, limits, recording=False)
    return found or Decision("start", f"may start; {_progress(run_dir)}")


def clear(run_dir: Path, why: str) -> None:
    """Forgets failed starts, blamed nodes and stops: a person has mended what was wrong."""
    record(run_dir, "clear", reason=why)


def _reason_not_to_start(
    attempt: Attempt, limits: Limits, recording: bool = True
) -> Optional[Decision]:
    run_dir = attempt.run_dir
    step = committed_step(run_dir)
    if attempt.train_iters and (step or 0) >= attempt.train_iters:
        return Decision("stop", f"finished: step {step} of {attempt.train_iters} is committed")
    history = read_history(run_dir)
    if history.stop is not None and _binds(history.stop, attempt):
        return Decision("refuse", _again_after(str(history.stop.get("reason")), run_dir))
    if (why := _stop_request(run_dir, recording)) is not None:
        return _stop(attempt, why, "stop", recording)
    if (why := _refusal(run_dir) or _no_progress(run_dir, limits)) is not None:
        return _stop(attempt, why, "refuse", recording)
    moved = _with_exclusions(Decision("requeue", ""), attempt, limits)
    if found := sorted(set(moved.exclude) & set(attempt.nodes)):
        return Decision("requeue", f"{_names(found)} is bad: {_why_bad(run_dir)}", 0, moved.exclude)
    return None


def _what_follows(attempt: Attempt, ended: Ended, limits: Limits) -> Decision:
    run_dir, status = attempt.run_dir, read_status(attempt.run_dir)
    if (committed_step(run_dir) or 0) >= attempt.train_iters > 0:
        return Decision("stop", f"finished at step {attempt.train_iters}")
    if (refusal := _refusal(run_dir)) is not None:
        return _stop(attempt, refusal, "refuse")
    if ended.fate == "cancelled":
        return Decision("stop", "the job was cancelled")
    if ended.fate == "requeued":
        return Decision("leave", "SLURM has requeued the job")
    if ended.signalled or ended.fate == "timeout":
        return Decision("requeue", f"its time was up; {_progress(run_dir)}")
    if ended.exit_status == 0:
        said = status.reason if status and status.state == "stopped" else "ended without an error"
        return _stop(attempt, f"stopped: {said}", "stop")
    if (why := _no_progress(run_dir, limits)) is not None:
        return _stop(attempt, why, "refuse")
    return _after_failure(attempt, ended, limits)


def _after_failure(attempt: Attempt, ended: Ended, limits: Limits) -> Decision:
    blamed, logs = _blamed(attempt, ended), attempt.logs
    reason = f"failed with status {ended.exit_status}; {_progress(attempt.run_dir)}; see {logs}"
    if blamed:
        reason = f"{'; '.join(f'{node}: {how}' for node, how in blamed.items())} {reason}"
    bad = set(blamed) | set(read_bad_nodes(attempt.run_dir))
    worth = ended.seconds_left > 0 and attempt.repeat < limits.max_restarts
    if worth and not bad & set(attempt.nodes):
        return Decision("again", reason, min(AGAIN_DELAY_S, limits.backoff_seconds))
    fruitless = len(read_history(attempt.run_dir).fruitless(committed_step(attempt.run_dir)))
    delay = limits.backoff_seconds * 2 ** (fruitless - 1) if fruitless else 0
    return Decision("requeue", reason, min(delay, LONGEST_BACKOFF_S))


def _blamed(attempt: Attempt, ended: Ended) -> dict[str, str]:
    failed = ended.exit_status != 0 and ended.fate == "running" and not ended.signalled
    return blame(attempt.logs) if failed else {}


def _with_exclusions(decision: Decision, attempt: Attempt, limits: Limits) -> Decision:
    """Excludes bad nodes: those that people and preflights named before those that were blamed."""
    bad = {**read_history(attempt.run_dir).blamed(), **read_bad_nodes(attempt.run_dir)}
    chosen = choose_excluded(bad, limits.max_excluded, attempt.usable, len(attempt.nodes))
    return Decision(decision.action, decision.reason, decision.delay_s, tuple(chosen))


def _why_bad(run_dir: Path) -> str:
    bad = {**read_history(run_dir).blamed(), **read_bad_nodes(run_dir)}
    return "; ".join(f"{node}: {reason}" for node, reason in bad.items())


def _stop(attempt: Attempt, why: str, action: str, recording: bool = True) -> Decision:
    """Ends the chain: no start is allowed until a person clears it."""
    if recording:
        record(attempt.run_dir, "stop", attempt=attempt.name, reason=why, action=action)
    return Decision(action, _again_after(why, attempt.run_dir))


def _binds(stop: Event, attempt: Attempt) -> bool:
    """A request to stop ends a chain of jobs; who starts a run by hand has thought of it."""
    return stop.get("action") != "stop" or attempt.job is not None


def _refusal(run_dir: Path) -> Optional[str]:
    """The trainer's own word that starting it again is of no use, if it came after the start."""
    status, start = read_status(run_dir), read_history(run_dir).last_start
    if status is None or start is None or status.state != "refused":
        return None
    return f"the run refused to go on: {status.reason}" if status.time >= start["time"] else None


def _stop_request(run_dir: Path, obey: bool) -> Optional[str]:
    """A stop file that somebody else than an earlier job's warning has written."""
    path = run_dir / STOP_FILE
    if not path.exists() or _is_own_request(path):
        return None
    if obey:
        path.unlink(missing_ok=True)
    return f"stopped: {path} asked for it before the start"


def _remove_own_request(run_dir: Path) -> None:
    if _is_own_request(run_dir / STOP_FILE):
        (run_dir / STOP_FILE).unlink(missing_ok=True)


def _is_own_request(path: Path) -> bool:
    try:
        return path.read_text(encoding="utf-8", errors="replace").startswith("time limit of job")
    except OSError:
        return False


def _no_progress(run_dir: Path, limits: Limits) -> Optional[str]:
    step = committed_step(run_dir)
    starts = read_history(run_dir).fruitless(step)
    if len(starts) < limits.max_starts:
        return None
    attempts = ", ".join(str(start.get("attempt")) for start in starts)
    logs = run_dir / "logs"
    return (
        f"no progress: {len(starts)} starts in a row (attempts {attempts}) committed no checkpoint "
        f"newer than {'the beginning' if step is None else f'step {step}'}, and at most "
        f"{limits.max_starts} are made; look at {logs / 'slurm' / str(starts[-1].get('attempt'))} "
        f"(nodes) and {logs}/rank_*.log (ranks)"
    )


def _again_after(why: str, run_dir: Path) -> str:
    return f"{why}. To start again: tools/launch.py guard --run-dir {run_dir} --clear"


def _progress(run_dir: Path) -> str:
    step = committed_step(run_dir)
    return "nothing is committed yet" if step is None else f"step {step} is committed"


def _train_iters(run_dir: Path) -> int:
    status = read_status(run_dir)
    return status.train_iters if status else 0


def _names(nodes: Collection[str]) -> str:
    return ", ".join(nodes) or "this machine"
