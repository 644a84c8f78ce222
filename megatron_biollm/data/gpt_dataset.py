"""Documents to samples of fixed length, on megatron-core's GPTDataset.

Core shuffles all epochs of a run together, so that its order depends on the number of training
steps. Here every epoch is a core dataset of its own, seeded from the run's seed and its number:
the order of a run is then the beginning of the order of every longer one.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Optional

import numpy as np
from megatron.core.datasets.blended_megatron_dataset_config import (
    convert_split_vector_to_split_matrix,
    parse_and_normalize_split,
)
from megatron.core.datasets.gpt_dataset import (
    GPTDataset,
    GPTDatasetConfig,
    _build_document_index,
    _build_shuffle_index,
)
from megatron.core.datasets.indexed_dataset import IndexedDataset
from megatron.core.datasets.utils import Split

from megatron_biollm.data.epoch_index import EpochIndex, EpochKey, load_index, save_index
from megatron_biollm.data.indexed import open_indexed
from megatron_biollm.data.layout import fingerprint, read_layout
from megatron_biollm.log import get_logger

_OPEN_EPOCHS = 2  # neighbouring samples of a blend lie at most on both sides of one border


@dataclass(frozen=True)
class SampleSettings:
    """How samples are cut: lengths in tokens, the run's seed, Megatron's switches for masks."""

    seq_length: int
    seed: int
    eod: int
    eod_mask_loss: bool = False
    reset_position_ids: bool = False
    reset_attention_mask: bool = False
    mmap_bin_files: bool = True
    cache_path: Optional[str] = None


def split_shares(split: str) -> list[Optional[tuple[float, float]]]:
    """`969,30,1` to core's bookends of train, valid and test; None for a share of 0."""
    return convert_split_vector_to_split_matrix(parse_and_normalize_split(split))


class Source:
    """One corpus's part of one split: the same samples every epoch, in another order.

    prefix: the corpus. split: "train", "valid" or "test". share: bookends of its sequences.
    num_samples: samples in an epoch; 0 if the part is too short for one.
    """

    def __init__(self, prefix: str, split: str, share: tuple[float, float], cut: SampleSettings):
        layout = read_layout(prefix)
        self.prefix, self.split, self.cut = prefix, split, cut
        # Core's rounding, so that a corpus splits where Megatron-LM splits it.
        self.first, self.end = (round(bookend * float(layout.sequences)) for bookend in share)
        lengths = layout.sequence_lengths()[self.first : self.end]
        self.tokens = int(lengths.sum(dtype=np.int64))
        self.num_samples = max(self.tokens - 1, 0) // cut.seq_length
        self.fingerprint = fingerprint(layout)
        self.cache = Path(cut.cache_path) if cut.cache_path else Path(f"{prefix}.index")
        self._epochs: dict[int, EpochDataset] = {}

    def epoch(self, epoch: int) -> "EpochDataset":
        """The samples of one epoch in their order; builds the index in memory if need be."""
        if epoch not in self._epochs:
            while len(self._epochs) >= _OPEN_EPOCHS:
                del self._epochs[next(iter(self._epochs))]
            self._epochs[epoch] = EpochDataset(self, self._index(epoch))
        return self._epochs[epoch]

    def build_index(self, epoch: int) -> Path:
        """Makes sure that the index of an epoch is on disk and returns its folder."""
        key = self._key(epoch)
        if load_index(self.cache, key) is None:
            save_index(self.cache, key, self._compute_index(key))
        return self.cache / key.folder_name()

    def has_index(self, epoch: int) -> bool:
        """Whether the index of an epoch is on disk, readable."""
        return load_index(self.cache, self._key(epoch)) is not None

    @cached_property
    def indexed(self) -> IndexedDataset:
        return open_indexed(self.prefix, mmap=self.cut.mmap_bin_files)

    def _index(self, epoch: int) -> EpochIndex:
        key = self._key(epoch)
        index = load_index(self.cache, key)
        if index is None:
            get_logger(__name__).warning(
                "the sample index of epoch %d of %s (%s) is not in %s; it is built in memory now: "
                "tools/build_index.py builds it before the run",
                epoch,
                self.prefix,
                self.split,
                self.cache,
            )
            index = self._compute_index(key)
        return index

    def _key(self, epoch: int) -> EpochKey:
        cut = self.cut
        return EpochKey(self.fingerprint, self.first, self.end, cut.seq_length, cut.seed, epoch)

    def _compute_index(self, key: EpochKey) -> EpochIndex:
        return compute_index(read_layout(self.prefix).sequence_lengths(), key)

    def __getstate__(self) -> dict[str, Any]:
        """Without open files: a worker process opens its own."""
        state = {**self.__dict__, "_epochs": {}}
        state.pop("indexed", None)
        return state


class EpochDataset(GPTDataset):
    """A core dataset of one epoch whose index is given, not taken from core's pickled cache."""

    def __init__(self, source: Source, index: EpochIndex):
        self._epoch_index = index
        config = _core_config(source)
        split = Split[source.split]
        super().__init__(source.indexed, source.prefix, index.documents, None, split, config)

    def sequences(self, sample: int) -> list[int]:
        """Numbers of the corpus's sequences (documents) that a sample is made of, in order."""
        return self._query_document_sample_shuffle_indices(sample)[1].tolist()

    def _build_document_sample_shuffle_indices(self) -> tuple[np.ndarray, ...]:
        index = self._epoch_index
        return index.documents, index.samples, index.shuffle


def compute_index(sequence_lengths: np.ndarray, key: EpochKey) -> EpochIndex:
    """The index core's GPTDataset builds for one epoch with the seed of `key`.

    sequence_lengths: int32, in tokens, of the whole corpus.
    """
    random = np.random.RandomState(key.random_seed())
    sequences = np.arange(key.first, key.end, dtype=np.int32)
    documents = _build_document_index(sequences, 1, random, False)
    tokens = int(sequence_lengths[key.first : key.end].sum(dtype=np.int64))
    samples = _sample_index(sequence_lengths, documents, key.seq_length, tokens)
    count = len(samples) - 1
    return EpochIndex(documents, samples, _build_shuffle_index(count, count, random))


def numpy_sample_index(
    sequence_lengths: np.ndarray, documents: np.ndarray, seq_length: int
) -> np.ndarray:
    """Where each sample begins, as core's compiled helper finds it; int32 [samples + 1, 2].

    Sample k begins at token k * seq_length of the shuffled documents, and shares one token with
    the sample before it: the label of that one's last token.
    """
    lengths = sequence_lengths[documents]
    ends = np.cumsum(lengths, dtype=np.int64)
    starts = np.arange((int(ends[-1]) - 1) // seq_length + 1, dtype=np.int64) * seq_length
    places = np.searchsorted(ends, starts, side="right")
    offsets = starts - (ends[places] - lengths[places])
    places[0] = 0  # the helper begins at the first document even if it is empty
    largest = max(len(documents), int(sequence_lengths.max()))
    dtype = np.int32 if largest <= np.iinfo(np.int32).max else np.int64
    return np.stack([places, offsets], axis=1).astype(dtype)


def _sample_index(
    sequence_lengths: np.ndarray, documents: np.ndarray, seq_length: int, tokens: int
) -> np.ndarray:
    try:
        from megatron.core.datasets.helpers import build_sample_idx
    except ImportError:  # the compiled helper is missing on this machine
        return numpy_sample_index(sequence_lengths, documents, seq_length)
    return build_sample_idx(sequence_lengths, documents, seq_length, 1, tokens, True, True)


def _core_config(source: Source) -> GPTDatasetConfig:
    cut = source.cut
    return GPTDatasetConfig(
        random_seed=cut.seed,
        sequence_length=cut.seq_length,
        blend=([source.prefix], None),
        split="1",
        path_to_cache="",
        mmap_bin_files=cut.mmap_bin_files,
        tokenizer=_TokenizerIds(cut.eod),
        reset_position_ids=cut.reset_position_ids,
        reset_attention_mask=cut.reset_attention_mask,
        eod_mask_loss=cut.eod_mask_loss,
        # The training step marks documents by their positions; a mask would take seq^2 bytes.
        create_attention_mask=False,
    )


@dataclass(frozen=True)
class _TokenizerIds:
    """What core's dataset asks of a tokenizer. pad: no id; every sample here is full."""

    eod: int
    pad: int = -1
    vocab_size: Optional[int] = None

    @property
    def unique_identifiers(self) -> dict[str, int]:
        return {"eod": self.eod}
