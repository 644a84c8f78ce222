"""Files of raw sources as streams of bytes: unpacked, and archives member by member.

Nothing is written to disk, so a member's name cannot lead out of a folder; one that tries to is
still refused and named, because whoever packed it meant harm or made a mistake.
"""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import zstandard

from megatron_biollm.corpus.readers.format import HEAD_BYTES
from megatron_biollm.corpus.report import FileReport

# What a packed file raises when it is cut short, broken inside, or not packed at all.
BROKEN = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zstandard.ZstdError,
    tarfile.TarError,
    zipfile.BadZipFile,
)

_TAR = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst")
# Unpacked text is some ten times larger, and all of it is held at once.
_ZSTD_READ_BYTES = 1 << 16


def open_streams(path: Path, report: FileReport) -> Iterator[tuple[str, io.BufferedReader]]:
    """The name and the unpacked stream of a file, or of each member of a .tar, .tar.gz or .zip.

    A stream is good until the next one is asked for. Names come without .gz, .zst, .xz.

    Args:
        path: the file.
        report: takes members whose names lead out of the archive, and links.

    Raises:
        One of `BROKEN`, here or while a stream is read.
    """
    name = path.name.lower()
    if name.endswith(_TAR):
        yield from _tar_members(path, report)
    elif name.endswith(".zip"):
        yield from _zip_members(path, report)
    else:
        with path.open("rb") as file, _unpacked(file, name) as stream:
            yield plain_name(path.name), _buffered(stream)


def is_archive(path: Path) -> bool:
    """Whether `open_streams` opens the file member by member."""
    return path.name.lower().endswith((*_TAR, ".zip"))


def plain_name(name: str) -> str:
    """The name without the ending of its compression."""
    return name[: -len(Path(name).suffix)] if _opener(name.lower()) else name


def _tar_members(path: Path, report: FileReport) -> Iterator[tuple[str, io.BufferedReader]]:
    with (
        path.open("rb") as file,
        _unpacked(file, path.name.lower().replace(".tgz", ".tar.gz")) as unpacked,
        tarfile.open(fileobj=unpacked, mode="r|") as archive,
    ):
        for member in archive:
            if member.isdir() or not _is_safe(member.name, report):
                continue
            if not member.isfile():
                report.fault(f"member {member.name}", "is a link or a device; it is left out")
                continue
            with _unpacked(archive.extractfile(member), member.name.lower()) as stream:
                yield plain_name(member.name), _buffered(stream)


def _zip_members(path: Path, report: FileReport) -> Iterator[tuple[str, io.BufferedReader]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.is_dir() or not _is_safe(member.filename, report):
                continue
            with (
                archive.open(member) as file,
                _unpacked(file, member.filename.lower()) as stream,
            ):
                yield plain_name(member.filename), _buffered(stream)


def _is_safe(name: str, report: FileReport) -> bool:
    place = PurePosixPath(name.replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts or ":" in place.parts[0]:
        report.fault(f"member {name}", "its path leads out of the archive; it is left out")
        return False
    return not any(part.startswith(".") for part in place.parts)


def _opener(name: str) -> Callable[[BinaryIO], BinaryIO] | None:
    if name.endswith(".gz"):
        return _open_gzip
    if name.endswith(".zst"):
        return _open_zstd
    return lzma.open if name.endswith(".xz") else None


def _open_gzip(file: BinaryIO) -> BinaryIO:
    return gzip.GzipFile(fileobj=file, mode="rb")


def _open_zstd(file: BinaryIO) -> BinaryIO:
    return _ZstdStream(file)


class _ZstdStream(io.RawIOBase):
    """Frames of zstd one after another. The library's own reader takes a cut file for a whole one.

    Raises EOFError where the last frame is not complete.
    """

    def __init__(self, file: BinaryIO):
        self.file = file
        self.frame = zstandard.ZstdDecompressor().decompressobj()
        self.packed = self.ready = b""
        self.begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview) -> int:
        while not self.ready and self._more():
            pass
        count = min(len(target), len(self.ready))
        target[:count], self.ready = self.ready[:count], self.ready[count:]
        return count

    def _more(self) -> bool:
        packed = self.packed or self.file.read(_ZSTD_READ_BYTES)
        if not packed:
            if self.begun:
                raise EOFError("the file ends in the middle of a zstd frame")
            return False
        self.ready, self.begun = self.frame.decompress(packed), True
        self.packed = self.frame.unused_data if self.frame.eof else b""
        if self.frame.eof:
            self.frame, self.begun = zstandard.ZstdDecompressor().decompressobj(), False
        return True


def _unpacked(file: BinaryIO, name: str) -> BinaryIO:
    opener = _opener(name)
    return opener(file) if opener else file


def _buffered(stream: BinaryIO) -> io.BufferedReader:
    return io.BufferedReader(stream, 2 * HEAD_BYTES)
