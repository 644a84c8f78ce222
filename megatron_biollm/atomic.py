"""Files and folders that appear complete or not at all."""

import contextlib
import errno
import glob
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from megatron_biollm.config import UserError

# EFBIG: a limit on file size (ulimit -f) ends a write as a full disk does.
_FULL = {errno.ENOSPC: "is full", errno.EDQUOT: "quota is used up", errno.EFBIG: "size limit"}
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextlib.contextmanager
def disk_errors(path: str | Path, remedy: str, kept: str = "nothing was kept") -> Iterator[None]:
    """Turns a full disk or a refused write below `path` into a UserError that ends in `remedy`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise UserError(
                f"cannot write {path}: the disk {_FULL[error.errno]} "
                f"({os.strerror(error.errno)}); {kept}, {remedy}"
            ) from error
        if error.errno in _CLOSED:
            raise UserError(
                f"cannot write {path}: {os.strerror(error.errno)}; the folder must be writable, "
                f"{remedy}"
            ) from error
        raise


def temporary_name(path: str | Path) -> Path:
    """A hidden name of this process beside `path`, so that a rename stays on one file system."""
    path, host = Path(path), socket.gethostname()
    return path.with_name(f".{path.name}.{host}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def sync_file(path: str | Path) -> None:
    """Has the file's bytes on disk before its name can point to them."""
    with Path(path).open("rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write that appears under its name only when all of it is on disk.

    Its folder is made. After an error nothing is left, and an older file of that name stays. What
    a killed process of this machine left of the same file goes.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    _remove_those_of_the_dead(Path(path))
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: str | Path) -> None:
    """Removes what killed processes left of `path`; for files that one process writes at a time."""
    for left in Path(path).parent.glob(f".{glob.escape(Path(path).name)}.*.tmp"):
        left.unlink()


def _remove_those_of_the_dead(path: Path) -> None:
    start = f".{path.name}.{socket.gethostname()}."
    for left in path.parent.glob(f"{glob.escape(start)}*.tmp"):
        pid = left.name.removeprefix(start).partition("-")[0]
        if pid.isdigit() and not _is_alive(int(pid)):
            left.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    """Whether a process may still write: not one that has ended and whose end nobody asked for."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # somebody else's, so alive
        return True


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as JSON in one step: a reader sees the old file or the new one."""
    with whole_file(path) as file:
        file.write(f"{json.dumps(value, indent=2)}\n".encode())


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Yields a temporary folder that becomes `path` at the end of the `with`.

    Of several processes that make the same folder at once the first one wins and the others
    discard theirs, so the contents must depend on the name alone. After an error nothing is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.iterdir():
            sync_file(file)
        _rename_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _rename_folder(temporary: Path, path: Path) -> None:
    try:
        temporary.rename(path)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
