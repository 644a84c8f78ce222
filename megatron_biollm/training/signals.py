"""Signals that ask a run to stop, noted and not obeyed at once. Imports nothing slow."""

import contextlib
import os
import signal
from types import FrameType
from typing import Any, Optional

STOP_SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
# A child that was forked from the rank (a writer of a checkpoint, a reader of data) is told to end
# together with it, but the rank may need it for its last checkpoint.
CHILD_GRACE_S = 120


class StopSignals:
    """Inside the `with`, SIGUSR1, SIGTERM and SIGINT are noted; afterwards all is as before.

    A second SIGINT ends the process as usual. Outside the main thread nothing is noted, since
    Python lets only that thread have handlers.

    Attributes:
        received: name of the first signal noted, None before.
    """

    def __init__(self) -> None:
        self.received: Optional[str] = None
        self._before: dict[signal.Signals, Any] = {}
        self._pid = os.getpid()

    def __enter__(self) -> "StopSignals":
        with contextlib.suppress(ValueError):  # not the main thread
            for number in STOP_SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame: Optional[FrameType]) -> None:
        if os.getpid() != self._pid:
            if number == signal.SIGTERM:
                signal.alarm(CHILD_GRACE_S)
            return
        self.received = self.received or signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(number, self._before[signal.SIGINT])
