"""A file that is digested as it is written, and on its way to the disk from its first bytes on."""

import ctypes
import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

# Smaller writes are collected up to this: an archive of a tensor begins and ends with dozens.
LARGE = 2**20
# So much is written before the kernel is asked to bring it to the disk.
PART = 2**24
SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h


class DigestingFile(io.RawIOBase):
    """A new file, written once from its start to its end.

    SHA-256 is computed beside the writing, from the same memory: read back from the file it would
    take as long again. What is written starts for the disk at once (sync_file_range(2)), where the
    kernel would else wait for fsync with all of it.

    Raises:
        OSError: the file cannot be made, or the disk is full.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        self.sha256, self.taken = hashlib.sha256(), 0
        self.on_disk, self.small = 0, bytearray()
        self.beside = ThreadPoolExecutor(1)
        self.start_for_disk = getattr(ctypes.CDLL(None), "sync_file_range", None)

    def write(self, data: Any) -> int:
        """Takes all of `data`, which may be changed afterwards."""
        view = memoryview(data).cast("B")
        if len(view) >= LARGE:
            self.flush()
            self._put(view)
        else:
            self.small += view
            if len(self.small) >= LARGE:
                self.flush()
        self.taken += len(view)
        return len(view)

    def flush(self) -> None:
        """Writes what was collected."""
        if not self.small:
            return
        collected, self.small = self.small, bytearray()
        self._put(memoryview(collected))

    def tell(self) -> int:
        return self.taken

    def fileno(self) -> int:
        """The descriptor of the file, which has everything by now; for fsync."""
        self.flush()
        return self.descriptor

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        if self.closed:
            return
        try:
            super().close()  # which flushes
        finally:
            self.beside.shutdown()
            os.close(self.descriptor)

    def digest(self) -> dict[str, object]:
        """As `verify.digest_files` gives it; of a closed file."""
        return {"bytes": self.taken, "sha256": self.sha256.hexdigest()}

    def _put(self, view: memoryview) -> None:
        digested = self.beside.submit(self.sha256.update, view)
        try:
            for start in range(0, len(view), PART):
                self._put_part(view[start : start + PART])
        finally:
            digested.result()

    def _put_part(self, part: memoryview) -> None:
        first = self.on_disk
        while part:
            count = os.write(self.descriptor, part)
            part, self.on_disk = part[count:], self.on_disk + count
        if self.start_for_disk is not None:  # a file system may not know it, and then fsync waits
            offset, length = ctypes.c_int64(first), ctypes.c_int64(self.on_disk - first)
            self.start_for_disk(self.descriptor, offset, length, SYNC_FILE_RANGE_WRITE)
