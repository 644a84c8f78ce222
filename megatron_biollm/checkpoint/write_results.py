"""The process that writes a rank's files: how it ends, and how it tells the rank what it wrote."""

import ctypes
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

PR_SET_PDEATHSIG = 1  # linux/prctl.h
WATCH_S = 0.05


class WriteResults:
    """What core uses of a queue, for the messages of one save, in an unnamed temporary file.

    Core's own is a server process: it costs seconds to start, and outlives a rank that was killed,
    with the rank's output held open. A pipe would block a writer with more to say than fits in.
    The file is shared by the rank and the writer forked from it, and by nobody else.
    """

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the save)
        self.taken = 0

    def put(self, message: Any) -> None:
        """Leaves a message; called by the writer."""
        pickle.dump(message, self.file)
        self.file.flush()

    def get_nowait(self) -> Any:
        """Takes the next message, once the writer has ended.

        Raises:
            queue.Empty: the writer died before it left one.
        """
        self.file.seek(self.taken)
        try:
            message = pickle.load(self.file)
        except (EOFError, pickle.UnpicklingError) as error:
            raise queue.Empty from error
        self.taken = self.file.tell()
        return message

    def close(self) -> None:
        """Gives the file back."""
        self.file.close()


def write_guarded(rank_pid: int, write: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """Runs `write` in a process of its own, which ends when the rank or a helper is killed.

    Core's writers start helpers (0.16) and wait for each without end, also for one that the
    system killed for its memory. A writer that ends without a message is a failed save, a writer
    that waits is a run that hangs.
    """
    _end_with_parent(rank_pid)
    threading.Thread(target=_end_with_killed_helpers, daemon=True).start()
    write(*args, **kwargs)


def _end_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before the line above
        os._exit(1)


def _end_with_killed_helpers() -> None:
    helpers = set()
    while True:
        helpers.update(multiprocessing.active_children())
        if any((helper.exitcode or 0) < 0 for helper in helpers):
            os._exit(1)
        time.sleep(WATCH_S)
