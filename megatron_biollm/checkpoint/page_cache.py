"""What the kernel keeps in memory of files: asked for, and told (Linux; elsewhere nothing happens).

Pages that a file is read into have to be found first. Where the kernel has free ones at hand that
costs little. In a virtual machine that gives what is free back to its host it took 1.9 s of the
kernel's time for 1 GB, and 0.07 s with pages that were forgotten just before.
"""

import ctypes
import errno
import functools
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

_WRITE, _WRITE_AND_WAIT = 2, 7  # flags of linux/fs.h: what is under way is waited for first
_DISK_FAILS = (errno.EIO, errno.ENOSPC, errno.EDQUOT)
_PART = 2**22  # what is forgotten at a time; fits into a processor's cache


def forget(descriptor: int, start: int = 0, stop: int = 0) -> None:
    """Takes bytes `start` to `stop` of a file out of memory, if the disk has them; 0 is its end."""
    _advise(descriptor, start, stop - start if stop else 0, "POSIX_FADV_DONTNEED")


def forget_file(path: Path, start: int = 0, stop: int = 0) -> None:
    """`forget` of a file that is not open."""
    with path.open("rb", buffering=0) as file:
        forget(file.fileno(), start, stop)


def write_out(descriptor: int, start: int, stop: int, wait: bool = False) -> None:
    """Has bytes `start` to `stop` of a file written to the disk now (sync_file_range(2)).

    wait: until they are there, which does not make them safe: that is for fsync.

    Raises:
        OSError: they could not be written, which a later fsync would not tell again.
    """
    sync_file_range = _sync_file_range()
    if sync_file_range is None:
        return
    place = ctypes.c_int64(start), ctypes.c_int64(stop - start)
    if sync_file_range(descriptor, *place, _WRITE_AND_WAIT if wait else _WRITE) == 0:
        return
    error = ctypes.get_errno()
    if error in _DISK_FAILS:  # and not: this kernel, or this kind of file, has no such call
        raise OSError(error, os.strerror(error))


def touch_only(descriptor: int) -> None:
    """Has the kernel read what it is asked for, where it would go on for megabytes."""
    _advise(descriptor, 0, 0, "POSIX_FADV_RANDOM")


def cached_share(path: Path) -> float:
    """How much of a file is in memory (mincore(2)): 0 to 1; 0 for an empty file."""
    size, mincore = path.stat().st_size, getattr(ctypes.CDLL(None), "mincore", None)
    if not size or mincore is None:
        return 0.0
    there = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        bytes_ = np.frombuffer(mapped, np.uint8)
        failed = mincore(_address(bytes_), ctypes.c_size_t(size), _address(there))
        del bytes_  # what is in use cannot be unmapped
    return 0.0 if failed else float((there & 1).mean())


class ForgetBehind:
    """Keeps a file that is read from its start to its end from staying in memory.

    One that was there already, for the most part, stays. Otherwise nothing of it is left there at
    first: the kernel reads ahead up to the next page that it has, and then waits to be asked, so
    that a page here and there costs half as much time again.
    """

    def __init__(self, path: Path) -> None:
        self.goes = cached_share(path) <= 0.5
        self.kept = self.forgotten = 0
        if self.goes:
            forget_file(path)

    def keep(self, stop: int) -> None:
        """What lies before byte `stop`, and is there still, stays."""
        self.kept = self.forgotten = stop

    def go_on(self, descriptor: int, done: int) -> None:
        """Tells that `done` bytes are read."""
        if self.goes and done - self.forgotten >= _PART:
            # From where it is kept: what lay half in the range before could not go then.
            forget(descriptor, self.kept, done)
            self.forgotten = done


@functools.cache
def _sync_file_range() -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)


def _address(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _advise(descriptor: int, start: int, length: int, advice: str) -> None:
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, start, length, getattr(os, advice))
