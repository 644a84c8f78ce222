"""Documents to samples of fixed length, on megatron-core's GPTDataset.

Core shuffles all epochs of a run together, so that its order depends on the number of training
steps. Here every epoch is a core dataset of its own, seeded from the run's seed and its number:
the order of a run is then the beginning of the order of every longer one.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Optional

import numpy as np
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import IndexedDataset
from megatron.core.datasets.utils import Split

from megatron_biollm.data.epoch_index import EpochIndex
from megatron_biollm.data.indexed import expect, open_indexed
from megatron_biollm.data.parts import Part
from megatron_biollm.log import get_logger

_OPEN_EPOCHS = 2  # neighbouring samples of a blend lie at most on both sides of one border


class Source(Part):
    """One corpus's part of one split, whose files are opened when a sample is asked for."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._epochs: dict[int, EpochDataset] = {}

    def epoch(self, epoch: int) -> "EpochDataset":
        """The samples of one epoch in their order; builds the index in memory if need be."""
        if epoch not in self._epochs:
            while len(self._epochs) >= _OPEN_EPOCHS:
                del self._epochs[next(iter(self._epochs))]
            self._epochs[epoch] = EpochDataset(self, self._index(epoch))
        return self._epochs[epoch]

    @cached_property
    def indexed(self) -> IndexedDataset:
        return open_indexed(self.prefix, mmap=self.cut.mmap_bin_files, shuffled=True)

    def _index(self, epoch: int) -> EpochIndex:
        index = self.find_index(epoch)
        if index is None:
            get_logger(__name__).warning(
                "the sample index of epoch %d of %s (%s) is not in %s; it is built in memory now: "
                "tools/build_index.py builds it before the run",
                epoch,
                self.prefix,
                self.split,
                self.store.folder,
            )
            index = self.compute_index(epoch)
        return index

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

    def _query_document_sample_shuffle_indices(self, idx: int) -> tuple[np.ndarray, np.ndarray]:
        number = self.shuffle_index[idx]
        (first, skip), (last, _) = self.sample_index[number : number + 2].tolist()
        count = self.config.sequence_length + 1
        expect(self.dataset, self.document_index[first : last + 1], skip, count)
        return super()._query_document_sample_shuffle_indices(idx)

    def _build_document_sample_shuffle_indices(self) -> tuple[np.ndarray, ...]:
        index = self._epoch_index
        return index.documents, index.samples, index.shuffle


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
