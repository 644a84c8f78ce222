"""What a disk writes and reads by itself: plain large sequential transfers, synced."""

import mmap
import os
import time
from pathlib import Path

from megatron_biollm.checkpoint.page_cache import forget_file

PART, BLOCK = 2**24, 4096


def write_seconds(path: Path, size: int, direct: bool = False) -> float:
    """Seconds to write `size` bytes to a new file and to force them to the disk.

    direct: past the page cache (O_DIRECT, Linux), in whole blocks.

    Raises:
        OSError: the disk is full, or the file system cannot write directly.
    """
    part = mmap.mmap(-1, PART)
    part.write(os.urandom(PART))
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | (os.O_DIRECT if direct else 0)
    left = size if not direct else -(-size // BLOCK) * BLOCK
    start = time.perf_counter()
    descriptor = os.open(path, flags, 0o666)
    try:
        while left:
            left -= os.write(descriptor, memoryview(part)[:left])
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


def forget(folder: Path) -> None:
    """Has no page of the files below a folder in memory."""
    os.sync()  # a page that is not written yet cannot be dropped
    for path in folder.rglob("*"):
        if path.is_file():
            forget_file(path)
