"""MinHash stage 1: the signature of every document of a task.

datatrove's stage 1 splits words with spaCy and hashes one shingle at a time; here both are array
operations over many documents at once. Its files are kept: `bucket_BBB/NNNNN.minhash.sig` holds the
hashes of one bucket and the document's number in its task, sorted, for its later stages to read.
Beside them lies `rows/NNNNN.bin`, `ROW_BYTES` per document: one byte of each of its hashes, of
shingles and of single words. The share of bytes in which two documents agree estimates how similar
they are (b-bit minwise hashing, Li and König 2010).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import numpy as np
import xxhash
from datatrove.data import Document as DatatroveDocument
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.utils.hashing import HashConfig

from megatron_biollm.atomic import whole_file
from megatron_biollm.corpus.dedup.batches import batched, words_of
from megatron_biollm.corpus.dedup.config import NearDuplicateConfig
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

# Hashes per document: similarities are then known to within about 0.03 and 0.035.
SHINGLE_HASHES = 256
WORD_HASHES = 128
ROW_BYTES = SHINGLE_HASHES + WORD_HASHES

# datatrove's stage 2 passes over a hash of 2**32 - 1.
_LARGEST_HASH = (1 << 32) - 2

_HASH = np.dtype("<u4")


class Signatures(MinhashDedupSignature):
    """One task per shard. Passes the documents on, so that they can be written in the same run."""

    type = "corpus"
    name = "near-duplicates 1: signatures"

    def __init__(self, config: NearDuplicateConfig, folder: str | Path):
        """folder: where all stages of near-duplicate removal leave their files."""
        # Not datatrove's own: that one loads a word splitter this class does without.
        super(MinhashDedupSignature, self).__init__()
        self.settings = config
        self.folder = signature_folder(folder)
        self.config = datatrove_config(config)

    def run(
        self, data: Iterable[DatatroveDocument], rank: int = 0, world_size: int = 1
    ) -> Iterator[DatatroveDocument]:
        remove_record(self.folder, rank)
        sources = self.settings.preferred_sources, self.settings.form_sources
        table = TableWriter(self.folder, rank, *sources)
        unsorted = Scratch(self.folder / "scratch" / f"{rank:05d}", self.settings.num_buckets)
        with table, unsorted, whole_file(row_path(self.folder, rank)) as rows:
            for batch in batched(data):
                with self.track_time("batch"):
                    self._sign([from_datatrove(given) for given in batch], table, unsorted, rows)
                yield from batch
            with self.track_time("task"):
                self._write_buckets(unsorted, rank)
        settings = signature_id(self.settings)
        write_record(self.folder, rank, world_size, settings=settings, **table.summary())

    def _sign(
        self, documents: list[Document], table: TableWriter, unsorted: Scratch, rows: BinaryIO
    ) -> None:
        words = words_of(documents)
        count = np.diff(words.offsets)
        seed, width = self.settings.seed, self.settings.hashes_per_bucket
        hashes = minhash(*shingle(words, self.settings.ngram), SHINGLE_HASHES, seed)
        of_words = minhash(*shingle(words, 1), WORD_HASHES, seed)
        rows.write(one_byte_each(np.concatenate([hashes, of_words], axis=1)).tobytes())
        # Nothing can be said of a text without a word: it meets no other.
        with_words = np.flatnonzero(count)
        records = np.empty((len(with_words), width + 1), _HASH)
        records[:, width] = table.documents + with_words
        for bucket in range(self.settings.num_buckets):
            records[:, :width] = hashes[with_words, bucket * width : (bucket + 1) * width]
            unsorted.add(bucket, records)
        table.add(documents, count)
        self.stat_update("total", value=len(documents))
        self.stat_update("no_words", value=len(documents) - len(with_words))

    def _write_buckets(self, unsorted: Scratch, rank: int) -> None:
        for bucket in range(self.settings.num_buckets):
            records = unsorted.take(bucket, _HASH).reshape(-1, self.settings.hashes_per_bucket + 1)
            with whole_file(signature_path(self.folder, bucket, rank)) as file:
                file.write(records[np.lexsort(records.T[::-1])].tobytes())


def minhash(hashes: np.ndarray, offsets: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The least value of each document's shingles under `count` permutations of 32-bit numbers.

    Args:
        hashes, offsets: shingles as from `shingle`, at least one per document.

    Returns:
        uint32, (documents, count).
    """
    random = np.random.default_rng(seed)
    odd = random.integers(0, 1 << 32, count, np.uint32) | np.uint32(1)
    shifts = random.integers(0, 1 << 32, count, np.uint32)
    shingles = (hashes >> np.uint64(32)).astype(np.uint32)
    least = np.empty((count, len(offsets) - 1), np.uint32)
    permuted = np.empty_like(shingles)
    for row, factor, shift in zip(least, odd, shifts, strict=True):
        np.multiply(shingles, factor, out=permuted)
        permuted += shift
        np.minimum.reduceat(permuted, offsets[:-1], out=row)
    return np.minimum(least, _LARGEST_HASH).T


def one_byte_each(signatures: np.ndarray) -> np.ndarray:
    """Eight bits of every hash, mixed from all of its bits."""
    return ((signatures * np.uint32(0x9E3779B1)) >> np.uint32(24)).astype(np.uint8)


def similarities(rows: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimated Jaccard similarity of documents, pair by pair: of their shingles, of their words.

    Args:
        rows, others: uint8, (..., ROW_BYTES), broadcast against one another.
    """
    agreed = rows == others
    # Bytes of different hashes agree by chance once in 256.
    shares = (
        (part.mean(axis=-1, dtype=np.float32) - 1 / 256) / (1 - 1 / 256)
        for part in (agreed[..., :SHINGLE_HASHES], agreed[..., SHINGLE_HASHES:])
    )
    return tuple(np.maximum(share, 0) for share in shares)


def datatrove_config(config: NearDuplicateConfig) -> MinhashConfig:
    """What datatrove's stages need to know to read the signatures."""
    return MinhashConfig(
        n_grams=config.ngram,
        num_buckets=config.num_buckets,
        hashes_per_bucket=config.hashes_per_bucket,
        seed=config.seed,
        hash_config=HashConfig(precision=32),
    )


def signature_id(config: NearDuplicateConfig) -> str:
    """Tells signatures that can be compared from those that cannot."""
    sources = ("preferred_sources", "form_sources")
    names = ("ngram", "num_buckets", "hashes_per_bucket", "seed", *sources)
    values = asdict(config)
    return xxhash.xxh64_hexdigest(repr([values[name] for name in names]).encode())


def signature_folder(folder: str | Path) -> Path:
    """Where stage 1 writes, below the folder of near-duplicate removal."""
    return Path(folder) / "signatures"


def signature_path(folder: Path, bucket: int, rank: int) -> Path:
    """datatrove's name for the signatures of one bucket and task."""
    return folder / f"bucket_{bucket:03d}" / f"{rank:05d}.minhash.sig"


def row_path(folder: Path, rank: int) -> Path:
    return folder / "rows" / f"{rank:05d}.bin"


def read_rows(tables: Tables, documents: np.ndarray) -> np.ndarray:
    """uint8, (documents, ROW_BYTES): what `similarities` compares."""

    def of_task(task: int) -> np.ndarray:
        return map_rows(row_path(tables.folder, task), np.dtype("u1"), ROW_BYTES)

    return tables.gather(documents, of_task)
