"""Indexed corpora: opened, written and merged with megatron-core's own classes."""

import contextlib
import mmap as mmap_module
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Optional

import numpy as np
from megatron.core.datasets.indexed_dataset import DType, IndexedDataset, IndexedDatasetBuilder

from megatron_biollm.atomic import disk_errors, sync_file, temporary_name
from megatron_biollm.config import UserError
from megatron_biollm.data.document_ids import write_ids
from megatron_biollm.data.layout import check_index, read_layout
from megatron_biollm.data.sidecar import file_digests, read_sidecar, write_sidecar

# Linux's and BSD's.
MADV_RANDOM = getattr(mmap_module, "MADV_RANDOM", None)
MADV_WILLNEED = getattr(mmap_module, "MADV_WILLNEED", None)


def token_dtype(vocab_size: int) -> np.dtype:
    """The dtype Megatron-LM writes for a vocabulary of this size: uint16 below 65,500."""
    return np.dtype(DType.optimal_dtype(vocab_size))


def open_indexed(
    prefix: str, mmap: bool = True, full_check: bool = False, shuffled: bool = False
) -> IndexedDataset:
    """Opens PREFIX.bin and PREFIX.idx; `dataset[i]` is the i-th sequence's token ids.

    mmap: map PREFIX.bin instead of reading it by seeks. full_check: also read all of PREFIX.idx.
    shuffled: no sequence is wanted because its neighbour is.

    Raises:
        UserError: a file is missing, truncated or damaged.
    """
    layout = read_layout(prefix)
    if full_check:
        check_index(layout)
    if not layout.sequences:
        raise UserError(
            f"{prefix} holds no token at all, and an empty corpus cannot be trained on; check the "
            "input of tools/preprocess_data.py"
        )
    dataset = IndexedDataset(str(prefix), multimodal=False, mmap=mmap)
    if shuffled and (mapped := _mapped_bin(dataset)):
        # The kernel would read up to megabytes around every document.
        mapped.madvise(MADV_RANDOM)
    return dataset


def expect(dataset: IndexedDataset, sequences: np.ndarray, skip: int, count: int) -> None:
    """Has the system begin to read sequences that are wanted next, all of them at once.

    skip: tokens of the first one that are not wanted. count: tokens wanted in all.
    """
    if not (mapped := _mapped_bin(dataset)):
        return
    size = dataset.index.dtype_size
    starts = dataset.index.sequence_pointers[sequences]
    lengths = dataset.index.sequence_lengths[sequences] * np.int64(size)
    starts[0], lengths[0] = starts[0] + skip * size, lengths[0] - skip * size
    lengths[-1] -= max(0, int(lengths.sum()) - count * size)
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        if length > 0:
            within = start % mmap_module.PAGESIZE
            mapped.madvise(MADV_WILLNEED, start - within, length + within)


def _mapped_bin(dataset: IndexedDataset) -> Optional[mmap_module.mmap]:
    """The map of PREFIX.bin; None where it is read by seeks or the system takes no advice."""
    array = getattr(dataset.bin_reader, "_bin_buffer_mmap", None)
    return getattr(array, "_mmap", None) if MADV_RANDOM is not None else None


class IndexedWriter:
    """Writes a corpus with core's builder under temporary names.

    `finish` completes the files, `commit` gives them their names. Used in a `with`, it leaves
    nothing behind unless `commit` was called.

    prefix: the corpus, without .bin or .idx. dtype: of the token ids, from `token_dtype`.
    """

    def __init__(self, prefix: str, dtype: np.dtype):
        self.prefix = str(prefix)
        self.dtype = np.dtype(dtype)
        self.temporary = str(temporary_name(prefix))
        self.committed = False
        with self._disk_errors():
            Path(prefix).parent.mkdir(parents=True, exist_ok=True)
            self.builder = IndexedDatasetBuilder(f"{self.temporary}.bin", self.dtype.type)
        # Core keeps two lists of Python integers; arrays take 12 bytes a document, not 70.
        self.builder.sequence_lengths = array("i")
        self.builder.document_indices = array("q", [0])

    def add_documents(
        self, tokens: np.ndarray, sequence_lengths: np.ndarray, sequences_per_document: np.ndarray
    ) -> None:
        """Appends whole documents: their ids in a row, and how they are cut.

        tokens: [all tokens]. sequence_lengths: [all sequences], in tokens.
        sequences_per_document: [documents]; 0 for a document without tokens.
        """
        with self._disk_errors():
            self.builder.data_file.write(tokens.astype(self.dtype, copy=False).tobytes())
        first = len(self.builder.sequence_lengths)
        bounds = first + np.cumsum(sequences_per_document, dtype=np.int64)
        self.builder.sequence_lengths.frombytes(sequence_lengths.astype(np.int32).tobytes())
        self.builder.document_indices.frombytes(bounds.tobytes())

    def add_prefix(self, prefix: str) -> None:
        """Appends another corpus.

        Raises:
            UserError: it is damaged, or holds ids of another dtype.
        """
        layout = read_layout(prefix)
        if layout.dtype != self.dtype:
            raise UserError(
                f"{prefix} holds {layout.dtype} ids, but {self.prefix} is written as {self.dtype}; "
                "corpora that are merged must come from one tokenizer: encode them again"
            )
        with self._disk_errors():
            self.builder.add_index(prefix)

    @property
    def documents(self) -> int:
        return len(self.builder.document_indices) - 1

    def finish(self) -> str:
        """Completes the files and returns their temporary prefix."""
        with self._disk_errors():
            self.builder.finalize(f"{self.temporary}.idx")
            for suffix in (".bin", ".idx"):
                sync_file(self.temporary + suffix)
        return self.temporary

    def commit(self, sidecar: dict[str, Any] | None = None, ids_of: Iterable[str] = ()) -> None:
        """Gives finished files their names. The .idx comes last: without it there is no corpus.

        ids_of: corpora whose documents' ids, one after another, are those of this one.
        """
        with self._disk_errors():
            Path(f"{self.prefix}.idx").unlink(missing_ok=True)
            Path(f"{self.temporary}.bin").replace(f"{self.prefix}.bin")
            write_ids(list(ids_of), self.prefix, Path(f"{self.temporary}.ids"))
            write_sidecar(self.prefix, sidecar)
            Path(f"{self.temporary}.idx").replace(f"{self.prefix}.idx")
        self.committed = True

    def close(self) -> None:
        """Removes whatever was not committed."""
        if self.committed:
            return
        with contextlib.suppress(OSError):  # a full disk fails again when the last bytes go out
            self.builder.data_file.close()
        for suffix in (".bin", ".idx", ".ids"):
            Path(self.temporary + suffix).unlink(missing_ok=True)

    def _disk_errors(self) -> contextlib.AbstractContextManager:
        return disk_errors(self.prefix, "free space or choose another --output-prefix")

    def __enter__(self) -> "IndexedWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def merge(prefixes: Iterable[str], output_prefix: str) -> None:
    """Writes the corpora one after another into one, with a sidecar if all of them have one.

    Raises:
        UserError: none is given, one is damaged, or they come from different tokenizers.
    """
    prefixes = list(prefixes)
    if not prefixes:
        raise UserError("no corpus to merge; give one prefix or more")
    sidecars = [read_sidecar(prefix) for prefix in prefixes]
    _check_one_tokenizer(prefixes, sidecars)
    with IndexedWriter(output_prefix, read_layout(prefixes[0]).dtype) as writer:
        for prefix in prefixes:
            writer.add_prefix(prefix)
        writer.finish()
        writer.commit(_merged(sidecars, writer.temporary) if all(sidecars) else None, prefixes)


def _check_one_tokenizer(prefixes: list[str], sidecars: list[dict[str, Any] | None]) -> None:
    known = [
        (prefix, (sidecar.get("tokenizer") or {}).get("sha256"))
        for prefix, sidecar in zip(prefixes, sidecars, strict=True)
        if sidecar
    ]
    for prefix, digest in known[1:]:
        if digest != known[0][1]:
            raise UserError(
                f"{known[0][0]} was encoded with the tokenizer {known[0][1]}, but {prefix} with "
                f"{digest}; corpora that are merged must come from one tokenizer: encode one again"
            )


def _merged(sidecars: list[dict[str, Any]], prefix: str) -> dict[str, Any]:
    summed = ("documents", "empty_documents", "bad_lines", "sequences", "tokens")
    return {
        **sidecars[0],
        **{key: sum(sidecar[key] for sidecar in sidecars) for key in summed},
        "false_document_ends": sum(s.get("false_document_ends", 0) for s in sidecars),
        "max_token_id": max(sidecar["max_token_id"] for sidecar in sidecars),
        "sha256": file_digests(prefix),
    }
