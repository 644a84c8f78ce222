"""Containment stages 1 and 2: sampled shingles of every document, and who shares how many.

Stage 1 leaves `shingles/NNNNN.bin`, sorted by hash, with an index of `SLICES` equal ranges of
hashes. Stage 2 gives each task some of these ranges of all documents; it leaves
`shared/NNNNN.bin`: how many sampled shingles of its ranges two documents share, sorted by the
shorter one, and `common/NNNNN.bin`: how many of a document's shingles were too common to count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import numpy as np
import xxhash
from datatrove.data import Document as DatatroveDocument
from datatrove.pipeline.base import PipelineStep

from megatron_biollm.atomic import whole_file
from megatron_biollm.config import UserError
from megatron_biollm.corpus.dedup.batches import batched, words_of
from megatron_biollm.corpus.dedup.config import ContainmentConfig
from megatron_biollm.corpus.dedup.scratch import Scratch
from megatron_biollm.corpus.dedup.shingles import shingle
from megatron_biollm.corpus.dedup.tables import (
    Tables,
    TableWriter,
    map_rows,
    remove_record,
    write_record,
)
from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.steps import from_datatrove

# The finest division of stage 2, and so its largest number of tasks.
SLICES = 4096

# A shard is sorted in this many parts.
_PART_BITS = 6
_PARTS = 1 << _PART_BITS

SHINGLE = np.dtype([("hash", "<u8"), ("document", "<u4")])
SHARED = np.dtype([("short", "<i8"), ("long", "<i8"), ("count", "<u4")])
COUNT = np.dtype([("document", "<i8"), ("count", "<u4")])


class Sketches(PipelineStep):
    """Stage 1, one task per shard. Passes the documents on.

    A task's file: 12 / `modulus` bytes per word of the shard; of this a part is in memory.
    """

    type = "corpus"
    name = "containment 1: sketches"

    def __init__(self, config: ContainmentConfig, folder: str | Path):
        """folder: where all stages of the search for contained documents leave their files."""
        super().__init__()
        self.settings, self.folder = config, sketch_folder(folder)

    def run(
        self, data: Iterable[DatatroveDocument], rank: int = 0, world_size: int = 1
    ) -> Iterator[DatatroveDocument]:
        remove_record(self.folder, rank)
        sources = self.settings.preferred_sources, self.settings.form_sources
        table = TableWriter(self.folder, rank, *sources)
        unsorted = Scratch(self.folder / "scratch" / f"{rank:05d}", _PARTS)
        with table, unsorted, whole_file(count_path(self.folder, rank)) as counts:
            for batch in batched(data):
                with self.track_time("batch"):
                    documents = [from_datatrove(given) for given in batch]
                    self._sample(documents, table, unsorted, counts)
                yield from batch
            with self.track_time("task"):
                self._write(unsorted, rank)
        settings = sketch_id(self.settings)
        write_record(self.folder, rank, world_size, settings=settings, **table.summary())

    def _sample(
        self, documents: list[Document], table: TableWriter, unsorted: Scratch, counts: BinaryIO
    ) -> None:
        words = words_of(documents)
        sampled = sample(*shingle(words, self.settings.ngram), self.settings.modulus)
        own = np.bincount(sampled["document"], minlength=len(documents))
        counts.write(own.astype("<u4").tobytes())
        sampled["document"] += table.documents
        part = sampled["hash"] >> np.uint64(64 - _PART_BITS)
        for number in np.unique(part):
            unsorted.add(int(number), sampled[part == number])
        table.add(documents, np.diff(words.offsets))

    def _write(self, unsorted: Scratch, rank: int) -> None:
        edges = np.zeros(SLICES + 1, "<i8")
        with whole_file(shingle_path(self.folder, rank)) as file:
            for part in range(_PARTS):
                sampled = np.sort(unsorted.take(part, SHINGLE), order=("hash", "document"))
                file.write(sampled.tobytes())
                edges[1:] += np.bincount(sampled["hash"] >> np.uint64(52), minlength=SLICES)
        with whole_file(self.folder / "slices" / f"{rank:05d}.bin") as file:
            file.write(np.cumsum(edges).astype("<i8").tobytes())


class SharedShingles(PipelineStep):
    """Stage 2, any number of tasks up to `SLICES`; their memory is the sketches divided by it."""

    type = "corpus"
    name = "containment 2: shared shingles"

    def __init__(self, config: ContainmentConfig, folder: str | Path):
        """folder: where all stages of the search for contained documents leave their files."""
        super().__init__()
        self.settings = config
        self.sketches, self.folder = sketch_folder(folder), shared_folder(folder)

    def run(self, data: None = None, rank: int = 0, world_size: int = 1) -> None:
        if world_size > SLICES:
            raise UserError(f"{world_size} tasks for {SLICES} slices of hashes; give at most those")
        remove_record(self.folder, rank)
        tables = Tables.open(self.sketches, "sketches", sketch_id(self.settings))
        with self.track_time("task"):
            hashes, documents = self._read(tables, rank, world_size)
            size = group_sizes(hashes)
            common, met = size > self.settings.common, (size > 1) & (size <= self.settings.common)
            shared = self._shared(tables, hashes[met], documents[met])
            write_sorted(self.folder / "shared", rank, shared, tables)
            write_sorted(self.folder / "common", rank, count_each(documents[common]), tables)
        made_from = {"sketches": tables.digests, "settings": shared_id(self.settings)}
        write_record(self.folder, rank, world_size, **made_from)

    def _read(self, tables: Tables, rank: int, world_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Hashes, sorted, and documents of this task's slices."""
        begin, end = (SLICES * place // world_size for place in (rank, rank + 1))
        hashes, documents = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for task in range(tables.tasks):
            edges = map_rows(self.sketches / "slices" / f"{task:05d}.bin", np.dtype("<i8"))
            found = map_rows(shingle_path(self.sketches, task), SHINGLE)[edges[begin] : edges[end]]
            hashes.append(found["hash"])
            documents.append(found["document"] + tables.offsets[task])
        hashes, documents = np.concatenate(hashes), np.concatenate(documents)
        order = np.argsort(hashes, kind="stable")
        return hashes[order], documents[order]

    def _shared(self, tables: Tables, hashes: np.ndarray, documents: np.ndarray) -> np.ndarray:
        members, places = np.unique(documents, return_inverse=True)
        # Numbered from the shortest on, so that the shorter of two is the lower number.
        order = by_length(tables, members)
        length = np.empty(len(members), np.uint64)
        length[order] = np.arange(len(members), dtype=np.uint64)
        length, pairs = length[places], [np.empty(0, np.uint64)]
        for distance in range(1, self.settings.common):
            meets = np.flatnonzero(hashes[distance:] == hashes[:-distance])
            first, second = length[meets], length[meets + distance]
            low, high = np.minimum(first, second), np.maximum(first, second)
            pairs.append(low << np.uint64(32) | high)
        met, counts = np.unique(np.concatenate(pairs), return_counts=True)
        shared = np.empty(len(met), SHARED)
        shared["short"] = members[order][met >> np.uint64(32)]
        shared["long"] = members[order][met & np.uint64(0xFFFFFFFF)]
        shared["count"] = counts
        return shared


def sample(hashes: np.ndarray, offsets: np.ndarray, modulus: int) -> np.ndarray:
    """The distinct shingles of each document whose hash is 0 modulo `modulus`, as `SHINGLE`s.

    A text without words has none: its shingle is 0.
    """
    documents = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    chosen = (hashes % np.uint64(modulus) == 0) & (hashes != 0)
    sampled = np.empty(int(chosen.sum()), SHINGLE)
    sampled["hash"], sampled["document"] = hashes[chosen], documents[chosen]
    return np.unique(sampled)


def group_sizes(keys: np.ndarray) -> np.ndarray:
    """For each of the sorted keys how many equal it."""
    edges = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1], [True]]))
    sizes = np.diff(edges) if len(keys) else np.empty(0, np.int64)
    return np.repeat(sizes, sizes)


def by_length(tables: Tables, documents: np.ndarray) -> np.ndarray:
    """Places of documents from the shortest to the longest; of equals the preferred one is last."""
    rows = tables.rows(documents)
    keys = (rows["key"], -rows["source"].astype(int), -rows["retracted"].astype(int), rows["words"])
    return np.lexsort(keys)


def count_each(documents: np.ndarray) -> np.ndarray:
    """How often each document occurs, as `COUNT`s."""
    found, counts = np.unique(documents, return_counts=True)
    result = np.empty(len(found), COUNT)
    result["document"], result["count"] = found, counts
    return result


def write_sorted(folder: Path, rank: int, entries: np.ndarray, tables: Tables) -> None:
    """Writes entries by their first field, a document, with an index of the tasks it belongs to."""
    first = entries.dtype.names[0]
    entries = entries[np.argsort(entries[first], kind="stable")]
    for name, values in (
        (f"{rank:05d}.bin", entries),
        (f"{rank:05d}.index", np.searchsorted(entries[first], tables.offsets).astype("<i8")),
    ):
        with whole_file(folder / name) as file:
            file.write(values.tobytes())


def read_sorted(folder: Path, dtype: np.dtype, task: int) -> np.ndarray:
    """The entries of one task's documents in all files that `write_sorted` left."""
    found = [np.empty(0, dtype)]
    for path in sorted(folder.glob("*.bin")):
        edges = map_rows(path.with_suffix(".index"), np.dtype("<i8"))
        found.append(map_rows(path, dtype)[edges[task] : edges[task + 1]])
    return np.concatenate(found)


def sketch_id(config: ContainmentConfig) -> str:
    """Tells sketches that can be compared from those that cannot."""
    values = asdict(config)
    names = ("ngram", "modulus", "preferred_sources", "form_sources")
    return xxhash.xxh64_hexdigest(repr([values[name] for name in names]).encode())


def shared_id(config: ContainmentConfig) -> list[str | int]:
    """Tells counts of shared shingles that belong to one another from others."""
    return [sketch_id(config), config.common]


def sketch_folder(folder: str | Path) -> Path:
    """Where stage 1 writes, below the folder of the search for contained documents."""
    return Path(folder) / "sketches"


def shared_folder(folder: str | Path) -> Path:
    """Where stage 2 writes."""
    return Path(folder) / "shared"


def shingle_path(folder: Path, rank: int) -> Path:
    return folder / "shingles" / f"{rank:05d}.bin"


def count_path(folder: Path, rank: int) -> Path:
    return folder / "counts" / f"{rank:05d}.bin"
