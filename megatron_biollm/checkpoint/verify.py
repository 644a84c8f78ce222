"""Whether a checkpoint is whole: commit marker, completeness, digests.

A checkpoint is written to `step_XXXXXXXX.*.partial`; when every file is there, digested and on the
disk, the marker is written and the folder renamed. So a folder without the marker, or with another
name, was never committed. Digests find damage, not malice: who can write the files can write the
digests too (what is safe then: `safe_pickle.py`, and the head of `sharded.py`).
"""

import errno
import hashlib
import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Optional

from megatron_biollm.checkpoint.digest import Digests, Entry, FileDigest, digest_file
from megatron_biollm.checkpoint.page_cache import ForgetBehind
from megatron_biollm.checkpoint.safe_pickle import check_checkpoint_pickles
from megatron_biollm.config import UserError

DIGESTS, MARKER, PARTIAL = "digests.json", "COMMITTED", ".partial"
VALUES = ".distcp"  # files of tensors, which are nearly all of a checkpoint
STEP_FOLDER = re.compile(r"step_(\d{8,})")

# What is read and digested at a time; fits into a processor's cache.
_PART = 2**22
# Between tensors lies, at most, the end of one archive and the start of the next.
_BETWEEN = 2**16
# Files that are digested or synced at once; digests and the system calls leave Python to others.
THREADS = 4


class BadCheckpoint(UserError):
    """The checkpoint is damaged, incomplete or was never committed."""


def step_folder(directory: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies once committed."""
    return directory / f"step_{step:08d}"


def step_of(folder: Path) -> int:
    """The step in the name of a checkpoint's folder."""
    return int(STEP_FOLDER.fullmatch(folder.name)[1])


def step_folders(directory: Path) -> list[Path]:
    """Folders that carry the name of a committed checkpoint, good or not, newest first."""
    if not directory.is_dir():
        return []
    found = [path for path in directory.iterdir() if STEP_FOLDER.fullmatch(path.name)]
    return sorted((path for path in found if path.is_dir()), key=step_of, reverse=True)


def is_checkpoint(path: Path) -> bool:
    """Whether `path` is meant as one checkpoint, good or not: by its name or its marker."""
    return path.name.startswith("step_") or (path / MARKER).is_file()


def unfinished_folders(directory: Path) -> list[Path]:
    """Folders of saves (and deletions) that are under way or were cut off."""
    return sorted(path for path in directory.glob(f"step_*{PARTIAL}") if path.is_dir())


def committed_steps(directory: Path) -> list[int]:
    """Steps whose folders carry the final name and the marker, oldest first."""
    folders = reversed(step_folders(directory))
    return [step_of(folder) for folder in folders if (folder / MARKER).is_file()]


def files_to_digest(folder: Path) -> list[str]:
    """Every file of a checkpoint but the digests themselves and the marker, sorted."""
    names = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return sorted(name for name in names if name not in (DIGESTS, MARKER))


def digest_files(folder: Path, names: Iterable[str]) -> Digests:
    """Size and digest of each named file of `folder`, after forcing it to the disk."""
    names = list(names)
    with ThreadPoolExecutor(THREADS) as threads:
        return dict(
            zip(names, threads.map(lambda name: _digest(folder / name), names), strict=True)
        )


def commit(partial: Path, final: Path, digests: Digests) -> None:
    """Writes digests and marker, then gives the folder its final name: the last act of a save.

    Raises:
        BadCheckpoint: a file of the folder has no digest.
    """
    seal(partial, digests)
    publish(partial, final)


def seal(partial: Path, digests: Digests) -> None:
    """Writes digests and marker.

    Each of them reaches the disk before the next one, and all of it before the final name: a power
    cut leaves the checkpoint whole or uncommitted.

    Raises:
        BadCheckpoint: a file of the folder has no digest.
    """
    missing = set(files_to_digest(partial)) - set(digests)
    if missing:
        raise BadCheckpoint(f"{partial}: not digested: {', '.join(sorted(missing))}")
    text = json.dumps(digests, indent=1, sort_keys=True).encode()
    (partial / DIGESTS).write_bytes(text)
    _sync(partial / DIGESTS)
    (partial / MARKER).write_text(hashlib.sha256(text).hexdigest() + "\n")
    _sync(partial / MARKER)
    for folder in [path for path in partial.rglob("*") if path.is_dir()] + [partial]:
        _sync(folder)


def publish(partial: Path, final: Path) -> None:
    """Gives a sealed checkpoint its final name."""
    partial.rename(final)
    _sync(final.parent)


def read_digests(folder: Path) -> Digests:
    """The recorded sizes and digests of a committed checkpoint.

    Raises:
        BadCheckpoint: no such folder, not committed, or the marker does not fit the digests.
    """
    if not folder.is_dir():
        raise BadCheckpoint(f"{folder} does not exist; give the path of a step_XXXXXXXX folder")
    if folder.suffix == PARTIAL:
        raise BadCheckpoint(
            f"{folder} was never committed: its save is under way or was cut off; use an older "
            f"checkpoint (the run's next save removes this one)"
        )
    if not (folder / MARKER).is_file() or not (folder / DIGESTS).is_file():
        raise BadCheckpoint(
            f"{folder} was never committed (no {MARKER} with {DIGESTS}): the save was cut off; "
            f"use an older checkpoint and delete this one"
        )
    text = (folder / DIGESTS).read_bytes()
    if hashlib.sha256(text).hexdigest().encode() != (folder / MARKER).read_bytes().strip():
        raise BadCheckpoint(
            f"{folder / DIGESTS} does not match {MARKER}: one of them was changed; use an older "
            f"checkpoint"
        )
    return json.loads(text)


def find_problems(
    folder: Path, part: int = 0, parts: int = 1, values: bool = True
) -> Iterator[str]:
    """What is wrong with the files of a committed checkpoint, each with its name and the remedy.

    Args:
        folder: of one step.
        part: this reader's share of the files, when several share the reading.
        parts: how many share it.
        values: digest the files of tensors too; else only their sizes are compared, and whoever
            reads them has to verify them.
    """
    try:
        recorded = read_digests(folder)
        names = sorted(recorded)[part::parts]
        digested = [values or not name.endswith(VALUES) for name in names]
        with ThreadPoolExecutor(THREADS) as threads:
            compare = partial(_compare, folder, recorded)
            for problems in threads.map(compare, names, digested):
                yield from problems
    except (OSError, ValueError, TypeError, KeyError) as error:
        yield str(error) if isinstance(error, UserError) else f"{folder} is unreadable: {error}"
        return
    if part == 0:
        try:
            check_checkpoint_pickles(folder)
        except UserError as error:
            if not values:  # if a file was changed, that is what is wrong
                yield from find_problems(folder)
            yield str(error)


def verify_checkpoint(folder: Path, part: int = 0, parts: int = 1) -> None:
    """Compares the files of a committed checkpoint with their digests.

    Args:
        folder, part, parts: as for `find_problems`.

    Raises:
        BadCheckpoint: never committed, or the first file that is missing, resized, changed, or a
            pickle that names what no checkpoint needs.
    """
    for problem in find_problems(folder, part, parts):
        raise BadCheckpoint(problem)


def verify_files(folder: Path, names: Iterable[str]) -> None:
    """Compares some files of a committed checkpoint with their digests.

    Raises:
        BadCheckpoint: never committed, or the first of them that is missing, resized or changed.
    """
    recorded = read_digests(folder)
    for name in names:
        Verification(folder / name, recorded[name]).finish()


@dataclass(frozen=True)
class Place:
    """Where bytes of a file are wanted, while all of it is read.

    start, size: of the bytes, of which there is at least one.
    memory: gives `size` bytes of memory, when their turn comes.
    filled: called once they are there.
    only_here: nobody else wants them soon.
    """

    start: int
    size: int
    memory: Callable[[], memoryview]
    filled: Callable[[], None]
    only_here: bool = False

    @property
    def stop(self) -> int:
        return self.start + self.size


class Verification:
    """Compares a file of a committed checkpoint with its digest, a part at a time.

    recorded: what `read_digests` has for the file.
    places: where its bytes are wanted besides; in order, and apart from each other.

    Raises:
        BadCheckpoint: the file is missing or resized.
    """

    def __init__(self, path: Path, recorded: Entry, places: Sequence[Place] = ()):
        self.path, self.recorded = path, recorded
        self.places, self.memory = deque(places), None
        if not path.is_file():
            raise BadCheckpoint(f"{path} is missing; use an older checkpoint")
        self.size = path.stat().st_size
        if self.size != recorded["bytes"]:
            raise BadCheckpoint(
                f"{path} has {self.size} bytes, {recorded['bytes']} were written; use an older "
                f"checkpoint"
            )
        self.digest, self.done = FileDigest(recorded), 0
        self.behind: Optional[ForgetBehind] = None

    def advance(self, stop: int) -> None:
        """Reads on up to byte `stop`, if that is not behind."""
        # Reading ahead of the digest in a thread of its own gained nothing, measured: on a file
        # each, two threads keep two cores busy.
        unwanted = memoryview(bytearray(max(0, min(_PART, stop - self.done))))
        self.behind = self.behind or ForgetBehind(self.path)
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.done)
            while self.done < stop:
                part = self._room(unwanted)[: min(_PART, stop - self.done)]
                count = file.readinto(part)
                if not count:
                    break
                self.digest.update(part[:count])
                self._go_on(count)
                self.behind.go_on(file.fileno(), self.done)

    def _room(self, unwanted: memoryview) -> memoryview:
        """Memory for the next bytes: their place, or else as much of `unwanted` as has none."""
        if not self.places:
            return unwanted
        place = self.places[0]
        if self.done < place.start:
            return unwanted[: place.start - self.done]
        if self.memory is None:
            self.memory = place.memory()
        return self.memory[self.done - place.start :]

    def _go_on(self, count: int) -> None:
        wanted = bool(self.places) and self.done >= self.places[0].start
        self.done += count
        goes = self.places[0].only_here if wanted else count <= _BETWEEN
        if not goes:
            self.behind.keep(self.done)
        if self.places and self.done == self.places[0].stop:
            self.memory = None
            self.places.popleft().filled()

    def finish(self) -> None:
        """Reads the rest and compares.

        Raises:
            BadCheckpoint: the file was changed.
        """
        self.advance(self.size)
        if self.digest.entry() != self.recorded:
            raise BadCheckpoint(
                f"{self.path} was changed after it was written (its digest differs); use an older "
                f"checkpoint"
            )


def _compare(folder: Path, recorded: Digests, name: str, digested: bool) -> list[str]:
    try:
        file = Verification(folder / name, recorded[name])
        if digested:
            file.finish()
    except BadCheckpoint as problem:
        return [str(problem)]
    return []


def _digest(path: Path) -> Entry:
    _sync(path)
    return digest_file(path)


def _sync(path: Path) -> None:
    """Forces a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without fsync
            raise
    finally:
        os.close(descriptor)
