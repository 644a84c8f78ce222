"""The most memory that a process and its children come to hold."""

import contextlib
import os
import threading
from pathlib import Path

SAMPLE_S = 0.05


class Watch:
    """The most memory that this process and its children come to hold above what they held.

    Pages that a child shares with its parent count once (`Pss_Anon` of Linux); files do not.
    """

    def __enter__(self) -> "Watch":
        self.before = self.most = _held()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        return self

    def _look(self) -> None:
        while not self.over.wait(SAMPLE_S):
            self.most = max(self.most, _held())

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.thread.join()

    @property
    def added(self) -> int:
        """Bytes."""
        return self.most - self.before


def _held() -> int:
    """Bytes of memory of this process and its children.

    What a fork amid the reading would count twice is read again.
    """
    while True:
        pids = _family()
        total = sum(_own_share(pid) for pid in pids)
        if _family() == pids:
            return total


def _family() -> list[int]:
    found = [os.getpid()]
    for pid in found:
        with contextlib.suppress(OSError):  # it has ended meanwhile
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _own_share(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_Anon:"))
