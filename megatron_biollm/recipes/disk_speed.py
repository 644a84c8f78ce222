"""What a disk writes and reads by itself: plain large sequential transfers, synced."""

import ctypes
import mmap
import os
import time
from collections.abc import Iterable
from pathlib import Path

PART = 2**24
SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h


def write_seconds(path: Path, size: int, started: bool = False) -> float:
    """Seconds to write `size` bytes to a new file and to force them to the disk.

    started: ask the kernel after each part to begin with it, which it does not do by itself before
        a tenth of the memory is to be written; plain tools leave it all to fsync.

    Raises:
        OSError: the disk is full.
    """
    part = memoryview(os.urandom(PART))
    start_for_disk = getattr(ctypes.CDLL(None), "sync_file_range", None) if started else None
    start = time.perf_counter()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        done = 0
        while done < size:
            count = os.write(descriptor, part[: size - done])
            if start_for_disk is not None:
                offset, length = ctypes.c_int64(done), ctypes.c_int64(count)
                start_for_disk(descriptor, offset, length, SYNC_FILE_RANGE_WRITE)
            done += count
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return time.perf_counter() - start


def read_seconds(path: Path) -> float:
    """Seconds to read a file into memory, part by part."""
    memory = mmap.mmap(-1, PART)
    start = time.perf_counter()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while os.readv(descriptor, [memory]):
            pass
    finally:
        os.close(descriptor)
    return time.perf_counter() - start


def forget(paths: Iterable[Path]) -> None:
    """Takes files that are on the disk out of the machine's memory, where that can be asked for."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
