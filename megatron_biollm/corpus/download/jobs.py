"""What is done for one file of the output, whichever source it comes from."""

from __future__ import annotations

import datetime
import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from megatron_biollm.config import UserError
from megatron_biollm.corpus.download.client import Client
from megatron_biollm.corpus.download.fetch import (
    Digests,
    RemoteFile,
    digests,
    disk_errors,
    expected_md5,
    fetch_file,
)
from megatron_biollm.corpus.download.manifest import Manifest, Record

Named = TypeVar("Named")


@dataclass
class Work:
    """What a job works with: the connection, the records, and whom to tell of bytes."""

    client: Client
    manifest: Manifest
    on_bytes: Callable[[int], None] = lambda count: None

    @property
    def root(self) -> Path:
        return self.manifest.root

    def note(self, remote: RemoteFile, found: Digests) -> None:
        """Records a finished file. Raises DiskError."""
        with disk_errors(self.manifest.file):
            self.manifest.add(record_of(remote, found))


class Job(Protocol):
    """path: what it makes, below the output folder. size, exact: as in `RemoteFile`."""

    path: str
    size: int | None
    exact: bool

    def is_done(self, manifest: Manifest) -> bool:
        """Whether its result is there, in the version that the source has now."""

    def run(self, work: Work) -> int:
        """Makes the result and records it; returns the bytes that were newly fetched."""


@dataclass(frozen=True)
class Selection:
    """Which files of a source are wanted.

    parts: of those the source has; empty means its default ones.
    first, last: names in alphabetical order, both included; the start of a name will do.
    include: a shell pattern for names. limit: at most so many files. years: of patents.
    """

    parts: tuple[str, ...] = ()
    first: str | None = None
    last: str | None = None
    include: str | None = None
    limit: int | None = None
    years: tuple[int, ...] = ()

    def parts_of(self, known: Iterable[str], default: Iterable[str]) -> list[str]:
        """The wanted parts, in the source's order. Raises UserError for an unknown one."""
        known = list(known)
        for part in self.parts:
            if part not in known:
                raise UserError(f"part {part!r} is not one of {', '.join(known)}; give one of them")
        return [part for part in known if part in (self.parts or tuple(default))]

    def of(self, items: Iterable[Named], name: Callable[[Named], str]) -> list[Named]:
        """The wanted items, in order of their names."""
        wanted = [item for item in items if self._wants(name(item))]
        return sorted(wanted, key=name)[: self.limit]

    def _wants(self, name: str) -> bool:
        late_enough = self.first is None or name >= self.first
        early_enough = self.last is None or name <= self.last or name.startswith(self.last)
        return (
            late_enough
            and early_enough
            and (self.include is None or fnmatch.fnmatchcase(name, self.include))
        )


@dataclass
class Plan:
    """Jobs of a source; names that were refused; files there that the source no longer lists."""

    jobs: list[Job]
    refused: list[str] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FileJob:
    """Fetches one remote file."""

    remote: RemoteFile

    @property
    def path(self) -> str:
        return self.remote.path

    @property
    def size(self) -> int | None:
        return self.remote.size

    @property
    def exact(self) -> bool:
        return self.remote.exact

    def is_done(self, manifest: Manifest) -> bool:
        return manifest.current(self.path, self.remote.version) is not None

    def run(self, work: Work) -> int:
        target = work.root / self.path
        found = self._already_there(work, target)
        fetched = 0
        if found is None:
            found = fetch_file(work.client, self.remote, target, work.on_bytes)
            fetched = found.bytes
        work.note(self.remote, found)
        return fetched

    def _already_there(self, work: Work, target: Path) -> Digests | None:
        """A file that came by other means, where the official checksum proves it whole."""
        if not target.is_file() or work.manifest.records.get(self.path):
            return None
        found, md5 = digests(target), expected_md5(work.client, self.remote)
        sized = self.remote.exact and found.bytes == self.remote.size
        return found if (found.md5 == md5 if md5 else sized) else None


def record_of(remote: RemoteFile, found: Digests) -> Record:
    return Record(
        url=remote.url,
        path=remote.path,
        bytes=found.bytes,
        md5=found.md5,
        sha256=found.sha256,
        licence=remote.licence,
        retrieved=now(),
        source=remote.source,
        version=remote.version,
    )


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
