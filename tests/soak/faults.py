"""Brings faults upon a run from outside, and looks for what the run should make of them."""

import contextlib
import os
import re
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.soak.disk import SmallDisk
from tests.soak.jobs import Job, SlurmJob
from tests.soak.plan import RANKS, Fault
from tests.soak.view import RunView

POLL_S = 0.005
FULL = re.compile(r"could not be written|checkpoint needs [\d.]+ \w+ and|No space left")


@dataclass
class Strike:
    """A fault that has come upon the run, and how the run stood just before.

    Attributes:
        fault: that it is.
        victim: in words.
        step: last step that was logged.
        time: time.monotonic().
        log_size: of rank 0's log.
        starts, ends: events of the launcher so far.
        hang_reports: that there were.
        incidents: rows so far.
        damaged: checkpoint that was damaged.
    """

    fault: Fault
    victim: str
    step: int
    time: float
    log_size: int
    starts: int
    ends: int
    hang_reports: set[Path] = field(default_factory=set)
    incidents: int = 0
    damaged: Path | None = None


class Faults:
    """Injects faults into one run.

    Args:
        view: of the run.
        job: that it is.
        disk: of its checkpoints, None where it cannot be filled.
    """

    def __init__(self, view: RunView, job: Job, disk: SmallDisk | None) -> None:
        self.view, self.job, self.disk = view, job, disk

    def is_due(self, fault: Fault) -> bool:
        """Whether the moment has come; a NaN comes by itself."""
        if fault.kind == "nan":
            return self.view.step() >= fault.step - 1
        if self.view.step() < fault.step:
            return False
        if fault.moment == "save":
            return self.view.is_saving()
        return len(self.view.ranks()) == RANKS and self._has_what_it_takes(fault)

    def _has_what_it_takes(self, fault: Fault) -> bool:
        if fault.kind in ("flip", "delete"):  # and one that is left to go back to
            return len(self.view.folders()) >= 3 and not self.view.is_saving()
        return True

    def inject(self, fault: Fault) -> Strike:
        """Does it, now."""
        strike = self._mark(fault)
        getattr(self, f"_do_{fault.kind}")(strike)
        return strike

    def _mark(self, fault: Fault) -> Strike:
        view = self.view
        return Strike(
            fault,
            "",
            view.step(),
            time.monotonic(),
            view.log_size(),
            len(view.events("start")),
            len(view.events("end")),
            view.hang_reports(),
            len(view.incidents()),
        )

    def _rank(self, strike: Strike) -> psutil.Process:
        rank = strike.fault.rank
        process = self.view.ranks()[rank]
        strike.victim = f"rank {rank}{self._where(process)}"
        return process

    def _where(self, process: psutil.Process) -> str:
        node = process.environ().get("SLURMD_NODENAME")
        return f" on {node}" if node else ""

    def _node(self, strike: Strike) -> str:
        strike.victim = self._rank(strike).environ()["SLURMD_NODENAME"]
        return strike.victim

    def _do_kill(self, strike: Strike) -> None:
        self._rank(strike).kill()

    def _do_sigstop(self, strike: Strike) -> None:
        self._rank(strike).suspend()

    def _do_sigterm(self, strike: Strike) -> None:
        self._rank(strike).terminate()

    def _do_sigterm_torchrun(self, strike: Strike) -> None:
        rank = self._rank(strike)
        strike.victim = f"torchrun{self._where(rank)}"
        rank.parent().terminate()

    def _node_job(self) -> SlurmJob:
        assert isinstance(self.job, SlurmJob), "nodes are SLURM's"
        return self.job

    def _do_node(self, strike: Strike) -> None:
        node = self._node(strike)
        self._node_job().lose_node(node)
        self._node_job().mend_node(node)

    def _do_daemon(self, strike: Strike) -> None:
        node = self._node(strike)
        self._node_job().kill_daemon(node)
        end = strike.step + 3  # it is away for some steps
        until = time.monotonic() + 60
        while self.view.step() < end and time.monotonic() < until:
            time.sleep(0.1)
        self._node_job().start_daemon(node)

    def _do_disk_full(self, strike: Strike) -> None:
        assert self.disk is not None, "there is no small disk"
        self.disk.fill()
        strike.victim = "checkpoints"

    def _do_nan(self, strike: Strike) -> None:
        strike.victim = f"gradients of rank {strike.fault.rank}"
        strike.incidents = 0  # it may have come already

    def _do_flip(self, strike: Strike) -> None:
        self._damage(strike, lambda path: path.is_file(), flip_byte)

    def _do_delete(self, strike: Strike) -> None:
        self._damage(strike, lambda path: path.suffix == ".distcp", lambda path, _: path.unlink())

    def _damage(self, strike: Strike, wanted: object, act: object) -> None:
        """To the newest checkpoint, before or after the ranks have died, so that it is read."""
        fault = strike.fault
        if fault.moment == "running":
            self._damage_newest(strike, wanted, act)
        self._rank(strike).kill()
        self.view.wait_until_dead()
        if strike.damaged is None or self.view.folders()[0] != strike.damaged:
            self._damage_newest(strike, wanted, act)

    def _damage_newest(self, strike: Strike, wanted: object, act: object) -> None:
        folder = self.view.folders()[0]
        files = sorted(path for path in folder.iterdir() if wanted(path))
        files = [path for path in files if path.name != "COMMITTED" and path.stat().st_size]
        path = files[int(strike.fault.draw * len(files))]
        act(path, strike.fault.draw)
        strike.damaged = folder

    def mend(self, strike: Strike) -> None:
        """What a person does once the fault has shown."""
        if strike.fault.kind == "disk_full":
            self.disk.free()

    def evidence(self, strike: Strike) -> str | None:
        """What the run made of it, in words; None before."""
        return getattr(self, f"_seen_{strike.fault.kind}", self._restarted)(strike)

    def _restarted(self, strike: Strike) -> str | None:
        ends = self.view.events("end")[strike.ends :]
        if len(self.view.events("start")) <= strike.starts:
            return None
        if not ends:  # the script itself was lost with its node
            return "SLURM requeued the job"
        return f"{ends[0]['action']}: {first_words(ends[0]['reason'])}"

    def _seen_sigstop(self, strike: Strike) -> str | None:
        new = self.view.hang_reports() - strike.hang_reports
        named = [path for path in new if _blames(path.read_text(), strike.fault.rank)]
        if not new or (restarted := self._restarted(strike)) is None:
            return None
        if not named:
            return f"WRONG: {sorted(new)[0].name} does not name the rank; {restarted}"
        return f"hang report names rank {strike.fault.rank}; {restarted}"

    def _seen_sigterm(self, strike: Strike) -> str | None:
        for end in self.view.events("end")[strike.ends :]:
            saved = end.get("committed_step") or 0
            if end["exit_status"] == 0 and saved >= strike.step:
                return f"saved step {saved} and stopped; started again by hand"
            return f"WRONG: exit status {end['exit_status']}, step {saved} committed"
        return None

    def _seen_daemon(self, strike: Strike) -> str | None:
        restarted = self._restarted(strike)
        if restarted is not None:
            return restarted
        return "the run went on, daemon back" if self.view.step() > strike.step + 3 else None

    def _seen_damaged(self, strike: Strike) -> str | None:
        if (restarted := self._restarted(strike)) is None:
            return None
        name = strike.damaged.name
        said = [line for line in self.view.log(strike.log_size).splitlines() if name in line]
        refused = [line for line in said if "refused:" in line]
        if refused:
            return f"{first_words(refused[0].partition('refused: ')[2])}; {restarted}"
        if any(f"restored {strike.damaged}" in line for line in said):
            return f"WRONG: {name} was loaded although damaged"
        return None

    _seen_flip = _seen_delete = _seen_damaged

    def _seen_disk_full(self, strike: Strike) -> str | None:
        found = FULL.search(self.view.log(strike.log_size))
        status = self.view.status()
        refused = status is not None and status.state == "refused"
        if not found and not (refused and FULL.search(status.reason)):
            return None
        end = self.view.events("end")[strike.ends :]
        return "the save was given up; " + (
            "stopped with the reason, started again by hand" if refused or end else "trained on"
        )

    def _seen_nan(self, strike: Strike) -> str | None:
        for row in self.view.incidents():
            if row["kind"] == "non-finite" or row["kind"] == "on another rank":
                samples = ", ".join(f"{first} to {end - 1}" for first, end in row["samples"])
                to = f" to step {row['rewind_to']}" if row["action"] == "rewind" else ""
                return f"step {row['step']}: {row['action']}{to}; samples {samples} listed"
        return None


def flip_byte(path: Path, draw: float) -> None:
    """One bit of the byte at share `draw` of the file."""
    with path.open("r+b", buffering=0) as file:
        place = int(draw * path.stat().st_size)
        file.seek(place)
        old = file.read(1)[0]
        file.seek(place)
        file.write(bytes([old ^ (1 << int(draw * 8))]))


def _blames(report: str, rank: int) -> bool:
    """Whether the head of a hang report, before the table of phases, accuses a rank."""
    head = report.partition("\nrank    step")[0].splitlines()[1:]
    return any(re.match(rf"rank {rank}\b", line) for line in head)


def first_words(text: str) -> str:
    """Without paths, and not more than a table bears."""
    text = re.sub(r"\S*/(?=[^/\s]+)", "", text)
    text = re.split(r"; see |; look at |\. To start", text)[0]
    return text if len(text) <= 90 else text[:87] + "..."


def end_all(view: RunView) -> None:
    """Kills every rank that is left, and what they have forked."""
    for process in view.processes():
        with contextlib.suppress(psutil.Error):
            os.kill(process.pid, signal.SIGKILL)
