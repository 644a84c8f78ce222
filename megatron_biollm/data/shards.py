"""Encoded shards in a work folder: each one complete or not there, and found again by a rerun.

A shard is named by a digest of all that decides its bytes: its place in its file, the file's size,
time and a sample of its content, the tokenizer and the options. So a rerun after a kill takes what
is finished, and never what was made from something else. Its files (ids, sequence lengths,
sequences per document and names of documents of each JSON key and stream) come first and its seal,
a JSON file with their checksums, comes last.
"""

import contextlib
import dataclasses
import hashlib
import json
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np

from megatron_biollm.config import UserError
from megatron_biollm.data.encode import Column, EncodedBatch
from megatron_biollm.data.lines import Shard

_VERSION = 2  # of the files in the folder
_SAMPLE_BYTES = 1 << 16
_TOLD_BAD_LINES = 20  # per shard; all are counted
PARTS = ("ids", "lengths", "documents", "names")


@dataclass
class StreamSeal:
    """One JSON key and stream of a shard.

    name_bytes: of the lines with the documents' own ids. checksums: CRC-32 of its files, as in
    `PARTS`.
    """

    documents: int = 0
    empty_documents: int = 0
    sequences: int = 0
    tokens: int = 0
    max_token_id: int = -1
    false_ends: int = 0
    name_bytes: int = 0
    checksums: list[int] = field(default_factory=lambda: [0] * len(PARTS))

    def include(self, other: "StreamSeal") -> None:
        """Adds another stream's counts; checksums do not add up."""
        for name in ("documents", "empty_documents", "sequences", "tokens", "false_ends"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.max_token_id = max(self.max_token_id, other.max_token_id)

    def add(self, column: Column, parts: list[bytes]) -> None:
        self.documents += len(column.sequences_per_document)
        self.empty_documents += int((column.sequences_per_document == 0).sum())
        self.sequences += len(column.sequence_lengths)
        self.tokens += len(column.tokens)
        self.false_ends += column.false_ends
        self.name_bytes += len(column.names)
        if len(column.tokens):
            self.max_token_id = max(self.max_token_id, int(column.tokens.max()))
        self.checksums = [
            zlib.crc32(part, checksum) for part, checksum in zip(parts, self.checksums, strict=True)
        ]


@dataclass
class Seal:
    """What is in a finished shard. streams: by "key number.stream". bad: the first messages."""

    name: str
    lines: int = 0
    bytes: int = 0
    bad_lines: int = 0
    bad: list[str] = field(default_factory=list)
    streams: dict[str, StreamSeal] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Optional["Seal"]:
        """None where there is no finished shard."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            streams = {name: StreamSeal(**stream) for name, stream in values["streams"].items()}
            return cls(**{**values, "streams": streams})
        except (OSError, ValueError, KeyError, TypeError):
            return None


class WorkFolder:
    """PREFIX.shards beside the output.

    prefix: `--output-prefix`. identity: everything but the input that decides the shards' bytes.
    """

    def __init__(self, prefix: str, identity: dict[str, Any]):
        self.path = Path(f"{prefix}.shards")
        self.identity = json.dumps([_VERSION, identity], sort_keys=True)

    def name(self, shard: Shard, file: str) -> str:
        """The shard's name. file: `file_identity` of its file."""
        described = json.dumps([self.identity, file, dataclasses.astuple(shard)[1:]])
        return hashlib.sha256(described.encode()).hexdigest()[:32]

    def finished(self, name: str) -> Optional[Seal]:
        """The seal of a finished shard whose files are all there."""
        seal = Seal.read(self.seal_path(name))
        if seal and all(map(self._is_whole, [seal] * len(seal.streams), seal.streams)):
            return seal
        return None

    def file(self, name: str, stream: str, part: str) -> Path:
        return self.path / f"{name}.{stream}.{part}"

    def seal_path(self, name: str) -> Path:
        return self.path / f"{name}.json"

    def remove_unfinished(self) -> int:
        """Removes files without a seal; returns how many shards are left."""
        sealed = {path.stem for path in self.path.glob("*.json")}
        for path in self.path.iterdir():
            if path.name.split(".")[0] not in sealed:
                path.unlink()
        return len(sealed)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def _is_whole(self, seal: Seal, stream: str) -> bool:
        counts = seal.streams[stream]
        files = [self.file(seal.name, stream, part) for part in PARTS]
        if not all(file.is_file() for file in files):
            return False
        sizes = [file.stat().st_size for file in files]
        itemsize = np.dtype(json.loads(self.identity)[1]["dtype"]).itemsize
        expected = [counts.tokens * itemsize, counts.sequences * 4, counts.documents * 4]
        return sizes == [*expected, counts.name_bytes]


def file_identity(file: str) -> str:
    """Tells a file from another or an older one: path, size, time, a digest of its two ends."""
    status = Path(file).stat()
    with Path(file).open("rb") as opened:
        sample = opened.read(_SAMPLE_BYTES)
        opened.seek(max(status.st_size - _SAMPLE_BYTES, 0))
        sample += opened.read(_SAMPLE_BYTES)
    digest = hashlib.sha256(sample).hexdigest()
    return f"{Path(file).resolve()} {status.st_size} {status.st_mtime_ns} {digest}"


def write_shard(folder: WorkFolder, name: str, batches: Iterator[EncodedBatch]) -> Seal:
    """Writes and seals a shard; after an error nothing of it is left."""
    seal = Seal(name)
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_unless_sealed, folder, name)
        files: dict[str, list[Any]] = {}
        for batch in batches:
            _add(seal, batch)
            for (key, number), column in batch.columns.items():
                stream = f"{key}.{number}"
                if stream not in files:
                    opened = (folder.file(name, stream, part).open("wb") for part in PARTS)
                    files[stream] = [stack.enter_context(file) for file in opened]
                _write(files[stream], seal.streams.setdefault(stream, StreamSeal()), column)
        for opened in files.values():
            for file in opened:
                file.close()
        _write_seal(folder, seal)
    return seal


def _add(seal: Seal, batch: EncodedBatch) -> None:
    seal.lines += batch.lines
    seal.bytes += batch.bytes
    seal.bad_lines += len(batch.bad)
    seal.bad += batch.bad[: _TOLD_BAD_LINES - len(seal.bad)]


def _write(files: list[Any], seal: StreamSeal, column: Column) -> None:
    arrays = (
        column.tokens,
        column.sequence_lengths.astype("<i4"),
        column.sequences_per_document.astype("<i4"),
    )
    parts = [memoryview(array).cast("B") if len(array) else b"" for array in arrays]
    parts.append(column.names)
    for file, part in zip(files, parts, strict=True):
        file.write(part)
    seal.add(column, parts)


def _write_seal(folder: WorkFolder, seal: Seal) -> None:
    # No fsync: after a power cut the checksums tell, and a kill loses nothing that was written.
    temporary = folder.path / f"{seal.name}.seal"
    temporary.write_text(json.dumps(dataclasses.asdict(seal)), encoding="utf-8")
    temporary.replace(folder.seal_path(seal.name))


def _remove_unless_sealed(folder: WorkFolder, name: str) -> None:
    if not folder.seal_path(name).is_file():
        for path in folder.path.glob(f"{name}.*"):
            path.unlink()


def damaged(path: Path) -> UserError:
    return UserError(
        f"{path} has another checksum than when it was written; the disk or the memory is at "
        f"fault: delete {path.parent} and run it again"
    )
