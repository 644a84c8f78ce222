"""Finished shards into PREFIX.bin, .idx and .ids: a stream, in the order of the input."""

import contextlib
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megatron_biollm.atomic import sync_file
from megatron_biollm.data.document_ids import commit_ids
from megatron_biollm.data.index_file import write_index
from megatron_biollm.data.shards import PARTS, Seal, StreamSeal, WorkFolder, damaged
from megatron_biollm.data.sidecar import write_sidecar

_CHUNK_BYTES = 1 << 20


@dataclass
class CorpusReport:
    """One corpus that was written.

    false_document_ends: end-of-document tokens that the text of a document itself gave.
    """

    prefix: str
    documents: int
    empty_documents: int
    sequences: int
    tokens: int
    max_token_id: int
    bad_lines: int
    false_document_ends: int


class Merger:
    """One JSON key's corpus, put together in the work folder.

    key: position of the JSON key. streams: as in `EncodeOptions`: document i lies in stream i
    modulo this, and the streams follow one another.
    """

    def __init__(self, folder: WorkFolder, key: int, streams: int, dtype: np.dtype):
        self.folder, self.key, self.streams, self.dtype = folder, key, streams, np.dtype(dtype)
        self.bin, self.idx, self.ids = (
            folder.path / f"merged.{key}.{end}" for end in ("bin", "idx", "ids")
        )
        self.digest = hashlib.sha256()
        self.file = self.bin.open("wb")
        self.shards: list[tuple[str, int]] = []
        self.documents = self.bad_lines = 0
        self.total = StreamSeal()

    def add(self, seal: Seal) -> None:
        """The next shard of the input. With one stream its ids are appended at once."""
        self.shards.append((seal.name, self.documents))
        # Lines left out count too: they were dealt to a stream.
        self.documents += seal.lines
        self.bad_lines += seal.bad_lines
        for name, stream in seal.streams.items():
            if name.startswith(f"{self.key}."):
                self.total.include(stream)
        if self.streams == 1:
            self._append(seal.name, seal.streams)

    def finish(self) -> dict[str, str]:
        """Completes both files; returns their digests."""
        ordered = list(self._in_order())
        if self.streams > 1:
            for name, stream in ordered:
                self._append_stream(name, stream, Seal.read(self.folder.seal_path(name)).streams)
        self.file.close()
        lengths, documents, names = (
            [self.folder.file(name, stream, part) for name, stream in ordered] for part in PARTS[1:]
        )
        index = write_index(self.idx, self.dtype, lengths, documents)
        with self.ids.open("wb") as file:
            for path in names:
                file.write(path.read_bytes())
        for path in (self.bin, self.idx, self.ids):
            sync_file(path)
        return {"bin": self.digest.hexdigest(), "idx": index}

    def report(self, prefix: str) -> CorpusReport:
        total = self.total
        return CorpusReport(
            prefix,
            total.documents,
            total.empty_documents,
            total.sequences,
            total.tokens,
            total.max_token_id,
            self.bad_lines,
            total.false_ends,
        )

    def commit(self, prefix: str, sidecar: dict[str, Any]) -> None:
        """Gives the files their names. The .idx comes last: without it there is no corpus."""
        Path(f"{prefix}.idx").unlink(missing_ok=True)
        self.bin.replace(f"{prefix}.bin")
        commit_ids(self.ids, prefix)
        write_sidecar(prefix, sidecar)
        self.idx.replace(f"{prefix}.idx")

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a full disk fails again when the last bytes go out
            self.file.close()

    def _in_order(self) -> Iterator[tuple[str, str]]:
        """(shard, stream) in the order of the corpus."""
        for stream in range(self.streams):
            for name, first_document in self.shards:
                own = f"{self.key}.{(stream - first_document) % self.streams}"
                if self.folder.file(name, own, "ids").is_file():
                    yield name, own

    def _append(self, name: str, streams: dict[str, StreamSeal]) -> None:
        if f"{self.key}.0" in streams:
            self._append_stream(name, f"{self.key}.0", streams)

    def _append_stream(self, name: str, stream: str, streams: dict[str, StreamSeal]) -> None:
        path, checksum = self.folder.file(name, stream, "ids"), 0
        with path.open("rb") as source:
            while data := source.read(_CHUNK_BYTES):
                self.file.write(data)
                self.digest.update(data)
                checksum = zlib.crc32(data, checksum)
        if checksum != streams[stream].checksums[0]:
            raise damaged(path)
