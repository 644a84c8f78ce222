"""MinHash stage 2: pairs of documents that meet in a bucket and are alike.

datatrove's stage 2 takes every two neighbours in a bucket for duplicates. With buckets narrow
enough to find texts of which every sixth word was changed, unlike documents meet as well, so each
pair is compared here before it counts. Its file is kept: `BBBBB_WW.dups` holds (task, document,
task, document) as four 32-bit numbers per pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from datatrove.pipeline.dedup.minhash import MinhashDedupBuckets

from megatron_biollm.atomic import whole_file
from megatron_biollm.config import UserError
from megatron_biollm.corpus.dedup.config import NearDuplicateConfig
from megatron_biollm.corpus.dedup.rule import alike
from megatron_biollm.corpus.dedup.shingles import mix
from megatron_biollm.corpus.dedup.signatures import (
    datatrove_config,
    read_rows,
    signature_folder,
    signature_id,
    signature_path,
    similarities,
)
from megatron_biollm.corpus.dedup.tables import (
    Tables,
    map_rows,
    remove_record,
    write_record,
)

# Each document is compared with so many that follow it among those it meets, and with the best of
# them: all of a family of copies are joined to it, while the work stays linear in its size.
NEIGHBOURS = 8

# Pairs compared at once, 768 bytes each.
_PAIRS_AT_ONCE = 1 << 18


class Buckets(MinhashDedupBuckets):
    """One task per bucket, or a multiple: the tasks of a bucket then share its hashes.

    A task's memory: about 50 bytes per document of the corpus, divided by the tasks per bucket.
    """

    type = "corpus"
    name = "near-duplicates 2: buckets"

    def __init__(self, config: NearDuplicateConfig, folder: str | Path):
        """folder: where all stages of near-duplicate removal leave their files."""
        self.settings = config
        self.signatures, self.pairs = signature_folder(folder), pair_folder(folder)
        super().__init__(str(self.signatures), str(self.pairs), config=datatrove_config(config))

    def run(self, data: None = None, rank: int = 0, world_size: int = 1) -> None:
        if world_size % self.settings.num_buckets:
            raise UserError(
                f"{world_size} tasks for {self.settings.num_buckets} buckets; run one task per "
                "bucket or a multiple of that"
            )
        remove_record(self.pairs, rank)
        tables = Tables.open(self.signatures, "signatures", signature_id(self.settings))
        bucket, worker = divmod(rank, world_size // self.settings.num_buckets)
        with self.track_time("task"), whole_file(pair_path(self.pairs, bucket, worker)) as file:
            keys, documents = self._read(tables, bucket, worker, world_size)
            for first, second in _meetings(tables, keys, documents):
                kept = self._alike(tables, first, second)
                self.stat_update("compared", value=len(kept))
                self.stat_update("alike", value=int(kept.sum()))
                file.write(_as_datatrove(tables, first[kept], second[kept]).tobytes())
        write_record(
            self.pairs, rank, world_size, signatures=tables.digests, alike=alike_id(self.settings)
        )

    def _alike(self, tables: Tables, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        forms = (tables.rows(first)["form"] & tables.rows(second)["form"]).astype(bool)
        found = similarities(read_rows(tables, first), read_rows(tables, second))
        return alike(*found, forms, self.settings)

    def _read(
        self, tables: Tables, bucket: int, worker: int, world_size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Keys and documents of this worker's part of a bucket."""
        width, workers = self.settings.hashes_per_bucket, world_size // self.settings.num_buckets
        keys, documents = [], []
        for task in range(tables.tasks):
            path = signature_path(self.signatures, bucket, task)
            records = map_rows(path, np.dtype("<u4"), width + 1)
            key = np.zeros(len(records), np.uint64)
            for column in range(width):
                key = mix(key ^ records[:, column])
            mine = key % np.uint64(workers) == worker
            keys.append(key[mine])
            documents.append(records[mine, width] + tables.offsets[task])
        return np.concatenate(keys), np.concatenate(documents)


def pair_folder(folder: str | Path) -> Path:
    """Where stage 2 writes, below the folder of near-duplicate removal."""
    return Path(folder) / "pairs"


def alike_id(config: NearDuplicateConfig) -> list[float]:
    """Tells pairs found under one rule from those found under another."""
    for_forms = [config.form_similarity, config.form_word_similarity]
    return [config.similarity, config.word_similarity, *for_forms]


def pair_path(folder: Path, bucket: int, worker: int) -> Path:
    """datatrove's name for the pairs of one bucket."""
    return folder / f"{bucket:05d}_{worker:02d}.dups"


def _meetings(
    tables: Tables, keys: np.ndarray, documents: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of different documents with one key, in handfuls."""
    order = np.lexsort((documents, keys))
    keys, documents = keys[order], documents[order]
    in_group = np.zeros(len(keys), bool)
    same = np.flatnonzero(keys[1:] == keys[:-1])
    in_group[same] = in_group[same + 1] = True
    keys, documents = keys[in_group], documents[in_group]
    for distance in range(1, NEIGHBOURS + 1):
        meets = np.flatnonzero(keys[distance:] == keys[:-distance])
        yield from _handfuls(documents[meets], documents[meets + distance])
    best = _best_of_group(tables, keys, documents)
    # The members of small groups have all been paired with one another.
    far = np.abs(best - np.arange(len(best))) > NEIGHBOURS
    yield from _handfuls(documents[far], documents[best[far]])


def _best_of_group(tables: Tables, keys: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """For each entry the place of the document most worth keeping among those of its key.

    Equals are settled by their hashes: here any one of them serves.
    """
    rows = tables.rows(documents)
    words, version = -rows["words"].astype(np.int64), -rows["version"].astype(np.int64)
    order = np.lexsort((rows["key"], words, version, rows["source"], rows["retracted"], keys))
    begins = np.append(True, keys[1:] != keys[:-1]) if len(keys) else np.empty(0, bool)
    return order[np.flatnonzero(begins)][np.cumsum(begins) - 1]


def _handfuls(first: np.ndarray, second: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        yield first[start : start + _PAIRS_AT_ONCE], second[start : start + _PAIRS_AT_ONCE]


def _as_datatrove(tables: Tables, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    columns = []
    for documents in (first, second):
        tasks = tables.task_of(documents)
        columns += [tasks, documents - tables.offsets[tasks]]
    return np.stack(columns, axis=1).astype("<u4")
