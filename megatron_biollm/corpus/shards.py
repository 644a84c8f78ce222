"""Shards of documents: JSON lines in zstd, complete and counted or not there at all.

Beside NNNNN.jsonl.zst lies NNNNN.json: how many documents and characters by source, the digest,
and what every step before it let through. datatrove's own reader passes over a file's rest at the
first bad byte and its writer gives a file its final name before it is whole; ours do neither.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import zstandard
from datatrove.data import Document as DatatroveDocument
from datatrove.pipeline.base import PipelineStep

from megatron_biollm.atomic import remove_leftovers, temporary_name, write_json
from megatron_biollm.config import UserError
from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.profile import Profile
from megatron_biollm.corpus.steps import from_datatrove, to_datatrove
from megatron_biollm.corpus.withhold import withhold_dropped

_LEVEL = 3


def shard_path(folder: Path, rank: int) -> Path:
    """Where the documents of a task lie."""
    return folder / f"{rank:05d}.jsonl.zst"


def read_sidecar(folder: Path, rank: int) -> dict[str, Any]:
    """What was recorded of a task's shard.

    Raises:
        UserError: there is none, so the task was not completed.
    """
    path = folder / f"{rank:05d}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing, though its task counts as completed; remove {folder.parent} and "
            "give the command again"
        ) from error


def read_shard(path: Path) -> Iterator[Document]:
    """The documents of one shard.

    Raises:
        UserError: the file is cut short or holds what no shard holds; nothing is passed over.
    """
    try:
        with path.open("rb") as file:
            stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            for line in io.BufferedReader(stream, 1 << 20):
                yield Document.from_json(orjson.loads(line))
    except (OSError, zstandard.ZstdError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"shard {path} cannot be read: {error}; remove its stage's folder"
        ) from error


class ReadShard(PipelineStep):
    """Yields the documents of the task's own shard, and checks that none is missing."""

    type, name = "corpus", "read shard"

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def run(
        self, data: Any = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[DatatroveDocument]:
        expected, count = read_sidecar(self.folder, rank)["documents"], 0
        for document in read_shard(shard_path(self.folder, rank)):
            count += 1
            yield to_datatrove(document)
        if count != expected:
            raise UserError(
                f"{shard_path(self.folder, rank)} holds {count} documents, but {expected} were "
                "written; the file was changed since: remove its stage's folder"
            )


class WriteShard(PipelineStep):
    """Writes the task's documents and the counts of the steps before it.

    folder: of the shards. counted: steps of the same pipeline that have a `flow`. extra: gives
    more plain values to record, when all documents have passed.
    """

    type, name = "corpus", "write shard"

    def __init__(
        self, folder: Path, counted: Sequence[Any], extra: Callable[[], dict[str, Any]] = dict
    ):
        super().__init__()
        self.folder, self.counted, self.extra = folder, counted, extra

    def run(
        self, data: Iterable[DatatroveDocument], rank: int = 0, world_size: int = 1
    ) -> Iterator[DatatroveDocument]:
        with ShardFile(shard_path(self.folder, rank)) as shard:
            for given in data:
                shard.write(from_datatrove(given))
                yield given
            shard.commit({"flows": _flows(self.counted), **self.extra()})


class WriteCounts(PipelineStep):
    """Writes the counts of the task's documents and of the steps before it, and no document.

    folder: of the sidecars. counted: steps of the same pipeline that have a `flow`.
    """

    type, name = "corpus", "write counts"

    def __init__(self, folder: Path, counted: Sequence[Any]):
        super().__init__()
        self.folder, self.counted = folder, counted

    def run(
        self, data: Iterable[DatatroveDocument], rank: int = 0, world_size: int = 1
    ) -> Iterator[DatatroveDocument]:
        documents = 0
        for given in data:
            documents += 1
            yield given
        sidecar = {"documents": documents, "flows": _flows(self.counted)}
        write_json(_sidecar_path(shard_path(self.folder, rank)), sidecar)


class WriteSources(PipelineStep):
    """Writes the task's documents to one shard for each source, FOLDER/SOURCE/NNNNN.jsonl.zst.

    Each sidecar tells in a `Profile` what the documents are like. Shards of the same task from an
    earlier run, of sources it no longer has, are removed.
    """

    type, name = "corpus", "write sources"

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def run(
        self, data: Iterable[DatatroveDocument], rank: int = 0, world_size: int = 1
    ) -> Iterator[DatatroveDocument]:
        shards: dict[str, ShardFile] = {}
        profiles: dict[str, Profile] = {}
        with contextlib.ExitStack() as stack:
            for given in data:
                document = from_datatrove(given)
                name = _folder_name(document.source)
                if name not in shards:
                    path = shard_path(self.folder / name, rank)
                    shards[name] = stack.enter_context(ShardFile(path))
                    profiles[name] = Profile()
                shards[name].write(document)
                profiles[name].add(document)
                yield given
            for old in self.folder.glob(f"*/{rank:05d}.json*"):
                old.unlink()
            for name, shard in shards.items():
                shard.commit({"source": shard.source(), "profile": profiles[name].to_dict()})


class ShardFile:
    """One shard being written; it has its name only after `commit`. For use in a `with`."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        self.temporary = temporary_name(path)
        self.file: BinaryIO = self.temporary.open("wb")
        self.digest = hashlib.sha256()
        self.packer = zstandard.ZstdCompressor(_LEVEL).compressobj()
        self.documents: Counter[str] = Counter()
        self.characters: Counter[str] = Counter()

    def write(self, document: Document) -> None:
        self.documents[document.source] += 1
        self.characters[document.source] += len(document.text)
        self._put(self.packer.compress(orjson.dumps(document.to_record()) + b"\n"))

    def source(self) -> str:
        """Where its documents are from; of names that make one folder, the most frequent one."""
        return self.documents.most_common(1)[0][0]

    def commit(self, sidecar: dict[str, Any]) -> None:
        """Completes the file; the sidecar comes last and says that it is whole."""
        self._put(self.packer.flush())
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        side = _sidecar_path(self.path)
        side.unlink(missing_ok=True)
        self.temporary.replace(self.path)
        write_json(side, {**self._counts(), **sidecar})

    def _counts(self) -> dict[str, Any]:
        return {
            "documents": self.documents.total(),
            "documents_by_source": dict(self.documents),
            "characters_by_source": dict(self.characters),
            "sha256": self.digest.hexdigest(),
        }

    def _put(self, data: bytes) -> None:
        self.digest.update(data)
        self.file.write(data)

    def __enter__(self) -> ShardFile:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.file.close()
        finally:
            self.temporary.unlink(missing_ok=True)


def _sidecar_path(shard: Path) -> Path:
    return shard.with_name(shard.name.removesuffix(".jsonl.zst") + ".json")


def _flows(counted: Sequence[Any]) -> list[dict[str, Any]]:
    """What the steps let through; without texts, since also these files are looked at, and kept
    for longer than anybody thinks of them."""
    return withhold_dropped([step.flow.to_dict() for step in counted])


def _folder_name(source: str) -> str:
    """A source as a name of one folder, whatever a JSONL record calls it."""
    return re.sub(r"[^\w.-]+", "_", source).strip(".") or "text"
