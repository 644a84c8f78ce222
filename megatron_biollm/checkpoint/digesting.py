"""A file that is digested as it is written, and that does not stay in memory."""

import io
import os
from typing import Any

from megatron_biollm.checkpoint import page_cache
from megatron_biollm.checkpoint.digest import Entry, FileDigest

# What is digested, and given to the disk, at a time; and what may be on its way there.
PART, BEHIND = 2**22, 2**24


class DigestingFile(io.RawIOBase):
    """A new file, written once from its start to its end.

    The disk begins with each part at once, and not only when the file is synced. What lies `BEHIND`
    is waited for and forgotten, and its pages serve the parts to come: a checkpoint is not read
    again soon, and pages for all of it would have to be found beside those of training.

    Raises:
        OSError: the file cannot be made, or the disk is full or fails.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        self.sum, self.begun = FileDigest(), 0

    def write(self, data: Any) -> int:
        """Takes all of `data`, which may be changed afterwards."""
        left = memoryview(data).cast("B")
        size = len(left)
        while left:
            count = os.write(self.descriptor, left[:PART])
            self.sum.update(left[:count])
            left = left[count:]
            if self.tell() - self.begun >= PART:
                self._write_out()
        return size

    def tell(self) -> int:
        return self.sum.count

    def fileno(self) -> int:
        """The descriptor of the file, for fsync."""
        return self.descriptor

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self.descriptor)

    def digest(self) -> Entry:
        """As `verify.digest_files` gives it."""
        return self.sum.entry()

    def _write_out(self) -> None:
        taken = self.tell()
        page_cache.write_out(self.descriptor, self.begun, taken)
        self.begun = taken
        if taken > BEHIND:
            page_cache.write_out(self.descriptor, 0, taken - BEHIND, wait=True)
            page_cache.forget(self.descriptor, 0, taken - BEHIND)
