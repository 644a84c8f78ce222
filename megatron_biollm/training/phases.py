"""What the main thread is doing, and how long each part of a step takes.

Read by other threads of the process: the one that writes the heartbeat, and the watchdog.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

START_UP, BETWEEN = "start-up", "between steps"


class PhaseView(NamedTuple):
    """One moment, as another thread sees it.

    Attributes:
        step: optimizer steps done.
        name: of the innermost phase.
        since: time.monotonic() of the last sign of progress.
        slow: may take long without anything being wrong: start-up, the first step, a checkpoint.
        progress: counts every sign of progress.
    """

    step: int
    name: str
    since: float
    slow: bool
    progress: int


@dataclass
class Part:
    """Attributes:
    seconds: of the clock, without those of the phases inside.
    cpu_seconds: of this thread's work in them.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0


class Phases:
    """The phases of one rank's main thread: `with phases("optimizer"): …`.

    Before the first step is done the process is in `start-up`.
    """

    def __init__(self) -> None:
        self._open: list[tuple[str, bool]] = [(START_UP, True)]
        self._parts: dict[str, Part] = {}
        self._marks = time.perf_counter(), time.thread_time()
        self._step, self._started, self._progress = 0, False, 0
        self.view = self._look()

    @contextlib.contextmanager
    def __call__(self, name: str, slow: bool = False) -> Iterator[None]:
        """Inside the `with` the main thread is in phase `name`; phases may lie in one another."""
        self._charge()
        self._open.append((name, slow))
        self.tick()
        try:
            yield
        finally:
            self._charge()
            self._open.pop()
            self.tick()

    def tick(self) -> None:
        """A sign of progress within a phase."""
        self._progress += 1
        self.view = self._look()

    def resume(self, step: int) -> None:
        """The run goes on after `step`; the first step is still to come."""
        self._step = step
        self.tick()

    def stepped(self, step: int) -> None:
        """One more step is done."""
        self._step, self._started = step, True
        self._open[0] = (BETWEEN, False)
        self.tick()

    def take(self) -> dict[str, Part]:
        """What each phase has cost since the last call."""
        self._charge()
        taken, self._parts = self._parts, {}
        return taken

    def _charge(self) -> None:
        now, cpu = time.perf_counter(), time.thread_time()
        part = self._parts.setdefault(self._open[-1][0], Part())
        part.seconds += now - self._marks[0]
        part.cpu_seconds += cpu - self._marks[1]
        self._marks = now, cpu

    def _look(self) -> PhaseView:
        slow = not self._started or any(slow for _, slow in self._open)
        return PhaseView(self._step, self._open[-1][0], time.monotonic(), slow, self._progress)
