"""A file that is digested as it is written, and that goes to the disk past the page cache."""

import contextlib
import ctypes
import fcntl
import io
import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from megatron_biollm.checkpoint.digest import Entry, FileDigest

# What is collected before it is digested and written, and how many such parts are under way.
PART, PARTS = 2**23, 3
O_DIRECT = getattr(os, "O_DIRECT", 0)  # Linux
SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h


class DigestingFile(io.RawIOBase):
    """A new file, written once from its start to its end.

    What is written is collected in parts, and each part is digested and written by a thread while
    the next one is collected. Parts go to the disk directly (O_DIRECT of open(2)): a checkpoint is
    not read again soon, and pages for it would have to be found, filled, and written out beside
    those of training. Where the file system has no direct writing, the kernel is asked to begin
    with each part at once (sync_file_range(2)), and not only when it is synced.

    Raises:
        OSError: the file cannot be made, or the disk is full; also told by a later call.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.descriptor, self.direct = _open(path)
        self.sum, self.taken, self.dispatched = FileDigest(), 0, 0
        self.writer = ThreadPoolExecutor(1)
        self.parts = [mmap.mmap(-1, PART) for _ in range(PARTS)]  # which lie as the disk needs it
        self.under_way: list[Future | None] = [None] * PARTS
        self.current, self.filled = 0, 0
        self.start_for_disk = getattr(ctypes.CDLL(None), "sync_file_range", None)

    def write(self, data: Any) -> int:
        """Takes all of `data`, which may be changed afterwards."""
        left = memoryview(data).cast("B")
        size = len(left)
        while left:
            count = min(len(left), PART - self.filled)
            part = memoryview(self.parts[self.current])
            part[self.filled : self.filled + count] = left[:count]
            self.filled += count
            left = left[count:]
            if self.filled == PART:
                self._dispatch()
        self.taken += size
        return size

    def flush(self) -> None:
        """Nothing: torch asks for it after each tensor, and only whole parts are written directly.
        `fileno` and `close` see to the rest."""

    def tell(self) -> int:
        return self.taken

    def fileno(self) -> int:
        """The descriptor of the file, which has everything by now; for fsync."""
        self._finish()
        return self.descriptor

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        try:
            self._finish()
        finally:
            self.writer.shutdown()
            os.close(self.descriptor)

    def digest(self) -> Entry:
        """As `verify.digest_files` gives it; of a closed file."""
        return self.sum.entry()

    def _finish(self) -> None:
        if self.filled:
            self._dispatch()
        for number in range(PARTS):
            self._wait(number)

    def _dispatch(self) -> None:
        """Has the current part digested and written, and goes on with the next."""
        part = memoryview(self.parts[self.current])[: self.filled]
        self.under_way[self.current] = self.writer.submit(self._put, part, self.dispatched)
        self.dispatched += self.filled
        self.current, self.filled = (self.current + 1) % PARTS, 0
        self._wait(self.current)

    def _wait(self, number: int) -> None:
        waited, self.under_way[number] = self.under_way[number], None
        if waited is not None:
            waited.result()

    def _put(self, part: memoryview, offset: int) -> None:
        first = offset
        self.sum.update(part)
        if self.direct and len(part) < PART:  # the end of a file is no whole block
            self._write_through_cache()
        while part:
            try:
                count = os.pwrite(self.descriptor, part, offset)
            except OSError:
                if not self.direct:
                    raise
                self._write_through_cache()  # if it is the disk that is full, it will say so again
                continue
            part, offset = part[count:], offset + count
        if not self.direct and self.start_for_disk is not None:
            place = ctypes.c_int64(first), ctypes.c_int64(offset - first)
            self.start_for_disk(self.descriptor, *place, SYNC_FILE_RANGE_WRITE)

    def _write_through_cache(self) -> None:
        self.direct = False
        flags = fcntl.fcntl(self.descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self.descriptor, fcntl.F_SETFL, flags & ~O_DIRECT)


def _open(path: str | os.PathLike) -> tuple[int, bool]:
    """A new file, and whether it can be written directly."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    if O_DIRECT:
        with contextlib.suppress(OSError):
            return os.open(path, flags | O_DIRECT, 0o666), True
    return os.open(path, flags, 0o666), False
