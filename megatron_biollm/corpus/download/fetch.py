"""One HTTP file to disk: resumed where it stopped, verified, under its name only when whole.

While it grows the file is ``.NAME.part``, and ``.NAME.part.json`` holds what identifies the
remote file (ETag or date). Range requests carry it as If-Range (RFC 9110, 13.1.5), so a file that
changed meanwhile comes whole and new, never as a mixture.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

from megatron_biollm.config import UserError
from megatron_biollm.corpus.download.client import (
    Cancelled,
    Client,
    DownloadError,
    Retry,
    Temporary,
    chunks,
)

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DiskError(UserError):
    """Nothing more can be written, so no further file is tried."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a source.

    path: where it goes below the output folder. size: bytes, or None; exact says whether they are
    so to the byte (a listing rounds). md5, or md5_url: its checksum, or the small file with it.
    licence: terms in words. version: see `manifest.Record`.
    """

    url: str
    path: str
    licence: str
    source: str
    size: int | None = None
    exact: bool = False
    md5: str | None = None
    md5_url: str | None = None
    version: str | None = None


@dataclass(frozen=True)
class Digests:
    """Size in bytes and checksums (hexadecimal) of a file on disk."""

    bytes: int
    md5: str
    sha256: str


def fetch_file(
    client: Client,
    remote: RemoteFile,
    target: Path,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> Digests:
    """Brings one file to `target`, resuming what an earlier run left.

    on_bytes: told of bytes as they come; of a negative number where some must come again.

    Raises:
        DownloadError: the server refuses, or fails too often, or the checksum stays wrong; the
            file is not kept.
        DiskError: the disk is full or closed; the part is kept.
        Cancelled: the run ends; the part is kept.
    """
    part, retry = _Part(target, on_bytes), Retry(client)
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        on_bytes(part.size())
        while True:
            furthest = part.furthest
            try:
                _transfer(client, remote, part)
                return _finish(client, remote, part, target)
            except Temporary as error:
                retry.wait(error, gained=part.furthest > furthest)


def digests(path: Path) -> Digests:
    """Reads a file once for both checksums."""
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            md5.update(block)
            sha256.update(block)
            size += len(block)
    return Digests(size, md5.hexdigest(), sha256.hexdigest())


def expected_md5(client: Client, remote: RemoteFile) -> str | None:
    """The official checksum; NLM's files read ``MD5(name)= hex``, others ``hex  name``."""
    if remote.md5_url is None:
        return remote.md5
    text = client.get(remote.md5_url, largest=1 << 16).decode("ascii", "replace")
    found = re.search(r"(?<![0-9a-fA-F])[0-9a-fA-F]{32}(?![0-9a-fA-F])", text)
    if not found:
        raise DownloadError(
            f"{remote.md5_url} holds {text[:60]!r}, but an MD5 checksum has 32 hexadecimal "
            "digits; check the base address"
        )
    return found[0].lower()


def write_whole(path: Path, content: bytes) -> None:
    """Writes a small file in one step: it is there whole, or not at all. Raises DiskError."""
    part = part_of(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        seal(part, path)


def seal(part: Path, path: Path) -> None:
    """Gives a finished part its name, once its bytes are on disk."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def part_of(target: Path) -> Path:
    """Hidden, so that no reader of the folder takes it for a corpus file."""
    return target.with_name(f".{target.name}.part")


@contextlib.contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turns what the file system refuses into a DiskError that names the file."""
    try:
        yield
    except OSError as error:
        full = error.errno in _FULL
        raise DiskError(
            f"cannot write {target}: {error.strerror or error}; "
            + ("free some space" if full else "the folder must be writable, change it")
            + " and run again: finished files stay, unfinished ones are resumed"
        ) from error


class _Part:
    """The unfinished file, and what it is a part of."""

    def __init__(self, target: Path, on_bytes: Callable[[int], None]):
        self.path, self.on_bytes = part_of(target), on_bytes
        self.state = self.path.with_name(self.path.name + ".json")
        self.furthest = self.size()

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def validator(self) -> str | None:
        """The ETag or date of the file that this is a part of; None where it is unknown."""
        try:
            state = json.loads(self.state.read_text(encoding="utf-8"))
            return state["validator"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def start(self, response: requests.Response) -> None:
        """Forgets what is there; the part will be of the file that `response` brings."""
        self.discard()
        state = {"url": response.url.partition("?")[0], "validator": _validator(response)}
        self.state.write_text(json.dumps(state), encoding="utf-8")

    def append(self, blocks: Iterator[bytes]) -> None:
        try:
            with self.path.open("ab") as file:
                for block in blocks:
                    file.write(block)
                    self.on_bytes(len(block))
        finally:
            self.furthest = max(self.furthest, self.size())

    def discard(self) -> None:
        self.on_bytes(-self.size())
        # The bytes go first: without them the state says nothing.
        self.path.unlink(missing_ok=True)
        self.state.unlink(missing_ok=True)


def _transfer(client: Client, remote: RemoteFile, part: _Part) -> None:
    """One attempt to complete the part. Raises Temporary where bytes are missing."""
    held, validator = part.size(), part.validator()
    resumed = {"Range": f"bytes={held}-", "If-Range": validator} if held and validator else {}
    with client.open(remote.url, resumed, also=(416,) if resumed else ()) as response:
        if response.status_code == 200:
            part.start(response)
        elif not _continues(response, held, validator):
            part.discard()
            raise Temporary(f"{remote.url}: what was fetched before does not fit any more")
        part.append(_until_stopped(client, chunks(response, remote.url)))
        total = _total(response)
    if total is not None and part.size() != total:
        raise Temporary(f"{remote.url}: {part.size():,} of {total:,} bytes came")


def _until_stopped(client: Client, blocks: Iterator[bytes]) -> Iterator[bytes]:
    for block in blocks:
        yield block
        if client.stop.is_set():
            raise Cancelled


def _continues(response: requests.Response, held: int, validator: str | None) -> bool:
    """Whether a 206 answer goes on where the part ends; some servers ignore If-Range."""
    start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if response.status_code != 206 or not start or int(start[1]) != held:
        return False
    return _validator(response) in (None, validator)


def _validator(response: requests.Response) -> str | None:
    """A strong ETag, else the date: weak ETags may not be used in If-Range."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def _total(response: requests.Response) -> int | None:
    """Bytes of the whole file, as far as the server tells."""
    if response.status_code == 206:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = response.headers.get("Content-Length", "")
    return int(total) if total.isdigit() else None


def _finish(client: Client, remote: RemoteFile, part: _Part, target: Path) -> Digests:
    """Verifies the part and gives it its name, or discards it and raises Temporary."""
    if not part.path.exists():
        part.path.touch()
    found, md5 = digests(part.path), expected_md5(client, remote)
    if md5 is not None and found.md5 != md5:
        part.discard()
        raise Temporary(f"{remote.url}: MD5 is {found.md5}, but must be {md5}; it was not kept")
    if remote.exact and remote.size is not None and found.bytes != remote.size:
        part.discard()
        raise Temporary(
            f"{remote.url}: {found.bytes:,} bytes came, but the source lists {remote.size:,}; "
            "it was not kept"
        )
    seal(part.path, target)
    part.state.unlink(missing_ok=True)
    return found
