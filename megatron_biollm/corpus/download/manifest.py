"""``downloads.jsonl``: what was fetched, from where, when, under which licence.

One JSON object per file and line; of several lines about one path the last one counts. A line torn
by a killed run is left out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from megatron_biollm.config import UserError

NAME = "downloads.jsonl"


@dataclass(frozen=True)
class Record:
    """One finished file.

    url: where it came from. path: below the folder of the manifest, with forward slashes.
    bytes, md5, sha256: of the file as it lies on disk.
    licence: the terms it came under. retrieved: UTC time, ISO 8601. source: as in documents.
    version: what the source says of this state of the file (its date in a listing, a digest of its
    parts); another one there means that the file must be fetched again.
    """

    url: str
    path: str
    bytes: int
    md5: str
    sha256: str
    licence: str
    retrieved: str
    source: str
    version: str | None = None


class Manifest:
    """The records of one folder, appended to by several threads."""

    def __init__(self, root: Path):
        self.root, self.file = root, root / NAME
        self.records = read_manifest(self.file)
        self.lock = threading.Lock()

    def add(self, record: Record) -> None:
        """Writes one line; it is on disk when this returns."""
        line = json.dumps(dataclasses.asdict(record)) + "\n"
        with self.lock:
            self.records[record.path] = record
            with self.file.open("ab+") as file:
                # Other sources may be fetched into the folder at the same time.
                fcntl.flock(file, fcntl.LOCK_EX)
                if _ends_torn(file):
                    line = "\n" + line
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())

    def current(self, path: str, version: str | None) -> Record | None:
        """The record of a file that is there, whole, in the version that the source has now."""
        record = self.records.get(path)
        file = self.root / path
        if record is None or record.version != version or not file.is_file():
            return None
        return record if file.stat().st_size == record.bytes else None

    def verify(self, checksum: Callable[[Path], str], below: str = "") -> list[str]:
        """Compares files with their SHA-256, and forgets those that are gone or differ.

        checksum: of a file, hexadecimal. below: only paths that start so.
        Returns the forgotten paths; a following download fetches them again.
        """
        there = {p: r for p, r in self.records.items() if p.startswith(below) and r.bytes}
        bad = [p for p, r in there.items() if not self._matches(r, checksum)]
        for path in bad:
            del self.records[path]
        return bad

    def _matches(self, record: Record, checksum: Callable[[Path], str]) -> bool:
        file = self.root / record.path
        return file.is_file() and checksum(file) == record.sha256


def read_manifest(file: Path) -> dict[str, Record]:
    """Records by path; none where there is no such file."""
    if not file.exists():
        return {}
    names = {field.name for field in dataclasses.fields(Record)}
    records = {}
    for line in file.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            row = json.loads(line)
            record = Record(**{key: value for key, value in row.items() if key in names})
        except (ValueError, TypeError, AttributeError):
            continue
        records[record.path] = record
    return records


def licence_of(file: Path) -> str | None:
    """The licence that the nearest manifest above records for a file, None where there is none."""
    file = file.resolve()
    for folder in file.parents:
        if (folder / NAME).is_file():
            record = read_manifest(folder / NAME).get(file.relative_to(folder).as_posix())
            return record.licence if record else None
    return None


@contextlib.contextmanager
def only_run(root: Path, folder: str) -> Iterator[None]:
    """Raises UserError while another process downloads the same folder of a source."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = (root / f".downloads-{folder}.lock").open("w")
    except OSError as error:
        raise UserError(
            f"cannot write into {root}: {error.strerror}; give an --output folder that you may "
            "write to"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another process downloads into {root / folder}; wait for it to end, or "
                "give another --output"
            ) from error
        yield


def _ends_torn(file) -> bool:
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"
