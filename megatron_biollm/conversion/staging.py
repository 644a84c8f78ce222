"""The folder that a conversion writes into before its result gets its name, and its disk."""

import contextlib
import fcntl
import os
import queue
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from megatron_biollm.atomic import sync_file
from megatron_biollm.checkpoint.retention import gigabytes
from megatron_biollm.checkpoint.verify import PARTIAL
from megatron_biollm.config import UserError
from megatron_biollm.log import get_logger

# Tokenizer, configuration and reports.
SIDECAR_BYTES = 50 * 10**6
logger = get_logger(__name__)


@contextmanager
def staged(final: Path, needed: int) -> Iterator[Path]:
    """A hidden folder beside `final`, gone at the end unless the block renamed it.

    What a killed conversion to the same place left is removed first; a lock that ends with its
    process tells it from the folder of one that is still running.

    Args:
        final: what the folder will be called; may not exist.
        needed: bytes that will be written.

    Raises:
        UserError: `final` exists, the disk has no room, or a write failed.
    """
    if final.exists():
        raise UserError(f"{final} exists; nothing is overwritten, give another --output")
    final.parent.mkdir(parents=True, exist_ok=True)
    _remove_remains(final)
    _check_space(final, needed + SIDECAR_BYTES)
    folder = final.parent / f".{final.name}.{os.getpid()}{PARTIAL}"
    folder.mkdir()
    lock = _locked(folder)
    try:
        yield folder
    except OSError as error:
        raise UserError(
            f"{final} cannot be written ({error.strerror or error}); nothing was kept, free some "
            f"space or give another --output"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def sync_tree(folder: Path) -> None:
    """Forces every file below `folder`, and their names, to the disk."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Flusher:
    """Forces files to the disk behind the back of who writes them, for use in a `with`.

    Without it the disk would idle while the first gigabytes gather in memory, and everything would
    wait for it at the end. A file may be added again while it grows; `after` is called once all
    that was added before is on the disk.
    """

    def __init__(self) -> None:
        self._queue: queue.Queue[Path | Callable[[], None] | None] = queue.Queue()
        self._waiting: set[Path] = set()
        self._problem: OSError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def add(self, path: Path) -> None:
        """Has what was written to `path` so far on the disk before the `with` ends."""
        if path not in self._waiting:
            self._waiting.add(path)
            self._queue.put(path)

    def after(self, act: Callable[[], None]) -> None:
        """Has the flusher's thread call `act` when it comes to it."""
        self._queue.put(act)

    def finish(self) -> None:
        """Waits for the disk.

        Raises:
            OSError: it refused something.
        """
        self._queue.put(None)
        self._thread.join()
        if self._problem is not None:
            raise self._problem

    def __enter__(self) -> "Flusher":
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                if not isinstance(item, Path):
                    item()
                    continue
                # Before the sync: what is written during it needs another one.
                self._waiting.discard(item)
                sync_file(item)
            except OSError as error:
                self._problem = error


def _check_space(final: Path, needed: int) -> None:
    free = shutil.disk_usage(final.parent).free
    if needed > free:
        raise UserError(
            f"{final} needs {gigabytes(needed)} and its disk has {gigabytes(free)} free; nothing "
            f"was written, free some space or give an --output on another disk"
        )


def _remove_remains(final: Path) -> None:
    for left in final.parent.glob(f".{final.name}.*{PARTIAL}"):
        lock = _locked(left)
        if lock is None:
            logger.warning("%s may belong to a conversion that is running; left alone", left)
            continue
        shutil.rmtree(left, ignore_errors=True)
        os.close(lock)
        logger.info("removed %s, left by a conversion that was cut off", left)


def _locked(folder: Path) -> int | None:
    """A descriptor that locks the folder until it is closed; None if another process holds it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except OSError:
            os.close(descriptor)
    return None
