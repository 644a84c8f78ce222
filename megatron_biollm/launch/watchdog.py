"""Ends a run that hangs, after it has written down which rank is to blame.

A collective waits for all its ranks; one that is stopped, or lost with its host, leaves the others
waiting until a timeout that names nobody. A thread of each rank looks at the main thread's
progress instead, then at all heartbeats, and ends the process, so that torchrun starts all of them
again.
"""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from megatron_biollm.launch.config import WatchConfig
from megatron_biollm.launch.hang_report import (
    Beats,
    culprit_lines,
    find_culprits,
    frozen_ranks,
    hang_text,
    is_here,
    write_report,
)
from megatron_biollm.launch.heartbeat import read_beats
from megatron_biollm.log import get_logger

# EX_TEMPFAIL of sysexits.h: another try may work.
HANG_STATUS = 75
# Beats between two looks at the others: one that has not written by then is stopped or dead.
BEATS_TO_SEE = 3
# A disk that hangs must not keep a report from ending.
REPORT_S = 60
logger = get_logger(__name__)


class Watchdog:
    """Looks after this rank's main thread, from a thread of its own.

    Args:
        run_dir: the run's folder.
        rank: of this process.
        world_size: ranks of the run.
        config: what is allowed.
        look: the main thread's phase: an object with since, slow and progress.
    """

    def __init__(
        self,
        run_dir: Path,
        rank: int,
        world_size: int,
        config: WatchConfig,
        look: Callable[[], Any],
    ) -> None:
        self.run_dir, self.rank, self.world_size = Path(run_dir), rank, world_size
        self.config, self.look = config, look
        self.seconds = config.heartbeat_seconds
        self.awake_since = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the watch, if there was one."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def explain(self, why: str) -> None:
        """Writes the report, or waits until the rank whose turn it is has written it.

        Takes some beats.
        """
        began, before = time.time(), read_beats(self.run_dir, self.world_size)
        time.sleep(BEATS_TO_SEE * self.seconds)
        self._report(before, began, why)

    def _run(self) -> None:
        while not self._sleeps(self.seconds):
            progress = self.look().progress
            if (stuck := self._stuck()) is None:
                continue
            began, before = time.time(), read_beats(self.run_dir, self.world_size)
            if self._sleeps(BEATS_TO_SEE * self.seconds) or self._stuck() is None:
                continue
            if self.look().progress == progress:
                self._end_process(before, began, stuck)

    def _sleeps(self, seconds: float) -> bool:
        """Waits; True if the watch is over. Notices when this process has itself been stopped, so
        that what others seem to have missed does not count."""
        before = time.monotonic()
        over = self._end.wait(seconds)
        if time.monotonic() - before > 2 * seconds + 1:
            self.awake_since = time.monotonic()
        return over

    def _stuck(self) -> str | None:
        """In words, if the main thread makes no progress for longer than is allowed."""
        view = self.look()
        field = "slow_timeout_minutes" if view.slow else "hang_timeout_minutes"
        still = time.monotonic() - max(view.since, self.awake_since)
        allowed = getattr(self.config, field)
        if still <= allowed * 60:
            return None
        return f"no progress for {still:.0f} s (watch.{field}={allowed:g})"

    def _end_process(self, before: Beats, began: float, stuck: str) -> None:
        report = threading.Thread(target=self._report, args=(before, began, stuck), daemon=True)
        report.start()
        report.join(REPORT_S)
        for stream in (*logging.getLogger("megatron_biollm").handlers, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(HANG_STATUS)  # the main thread sits in a collective and hears nothing else

    def _report(self, before: Beats, began: float, why: str) -> None:
        beats = read_beats(self.run_dir, self.world_size)
        frozen = [rank for rank in frozen_ranks(before, beats) if rank != self.rank]
        if self._is_written_by_another(frozen, began):
            self._kill_stopped(beats, frozen)
            return
        culprits = find_culprits(beats, frozen)
        noticed = f"rank {self.rank} on {socket.gethostname()}: {why}"
        logger.error("the run hangs: %s", noticed)
        for line in culprit_lines(beats, culprits):
            logger.error("%s", line)
        try:
            path = write_report(self.run_dir, hang_text(beats, culprits, noticed))
            logger.error("phases and stacks of all ranks: %s", path)
        except OSError as error:
            logger.error("the report cannot be written: %s", error)
        self._kill_stopped(beats, frozen)

    def _is_written_by_another(self, frozen: list[int], began: float) -> bool:
        """The lowest rank that lives writes; the others wait for it, in case it does not."""
        first = min(set(range(self.world_size)) - set(frozen))
        until = time.monotonic() + (0 if first == self.rank else BEATS_TO_SEE * self.seconds + 2)
        while time.monotonic() < until:
            reports = (self.run_dir / "logs").glob("hang_*.txt")
            if any(report.stat().st_mtime >= began - self.seconds for report in reports):
                return True
            time.sleep(0.2)
        return False

    def _kill_stopped(self, beats: Beats, frozen: list[int]) -> None:
        """A process that SIGSTOP holds hears no SIGTERM, and torchrun would wait for it."""
        for rank in frozen:
            if is_here(beats[rank]):
                logger.error("rank %d is ended with SIGKILL", rank)
                with contextlib.suppress(OSError):
                    os.kill(beats[rank].pid, signal.SIGKILL)
