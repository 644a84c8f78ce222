"""Conversations as rows of tokens, packed or one a row: `source.epoch(e)[i]` is one row."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Optional

import numpy as np
import torch

from megatron_biollm.data.config import parse_blend
from megatron_biollm.data.stream import SampleStream
from megatron_biollm.finetune.packing import EpochOrder, Packs, best_fit, epoch_order, one_each
from megatron_biollm.finetune.token_cache import TokenCache

_OPEN_EPOCHS = 2  # neighbouring samples of a blend lie at most on both sides of one border


@dataclass(frozen=True)
class RowSettings:
    """seq_length: places in a row. pad: id of the places that are left. seed: of the order.

    packing: as many conversations in a row as fit; else one.
    """

    seq_length: int
    pad: int
    seed: int
    packing: bool


class ConversationSource:
    """One file's conversations as rows, epoch after epoch.

    prefix: the file. num_samples: rows in an epoch.
    """

    def __init__(self, cache: TokenCache, rows: RowSettings) -> None:
        self.prefix, self.cache, self.rows = cache.file, cache, rows
        self._epochs: dict[int, ConversationEpoch] = {}

    @cached_property
    def packs(self) -> Packs:
        """The same in every epoch but for what has equal length."""
        lengths = self.cache.lengths
        if self.rows.packing:
            return best_fit(lengths, self.rows.seq_length)
        return one_each(len(lengths))

    @property
    def num_samples(self) -> int:
        return len(self.packs)

    def epoch(self, epoch: int) -> "ConversationEpoch":
        """The rows of one epoch in their order."""
        if epoch not in self._epochs:
            while len(self._epochs) >= _OPEN_EPOCHS:
                del self._epochs[next(iter(self._epochs))]
            order = epoch_order(self.packs, self.cache.lengths, self.rows.seed, epoch)
            self._epochs[epoch] = ConversationEpoch(self.cache, order, self.rows)
        return self._epochs[epoch]


@dataclass(frozen=True)
class ConversationEpoch:
    """The rows of one epoch."""

    cache: TokenCache
    order: EpochOrder
    rows: RowSettings

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        chosen = [self.cache[item] for item in self.order[index]]
        return make_row(chosen, self.rows.seq_length, self.rows.pad)

    def sequences(self, index: int) -> list[int]:
        """Lines of the file that a row is made of, in order."""
        return self.cache.lines[self.order[index]].tolist()


def make_row(
    conversations: Sequence[tuple[np.ndarray, np.ndarray]], seq_length: int, pad: int
) -> dict[str, torch.Tensor]:
    """Conversations end to end.

    Each ends one place before its last token, which is only a label. What is left over is padding:
    a document of its own, of which nothing counts, whatever its id stands for elsewhere.

    Args:
        conversations: ids and mask of each; the mask belongs to the token, so that a place counts
            where the token that follows it does.

    Returns:
        tokens, labels, position_ids: int64 [seq]; loss_mask: float32 [seq]. Positions begin again
        at every conversation. length: int64, places that are taken.
    """
    tokens, labels = (np.full(seq_length, pad, np.int64) for _ in range(2))
    loss_mask, positions = np.zeros(seq_length, np.float32), np.zeros(seq_length, np.int64)
    start = 0
    for ids, mask in conversations:
        end = start + len(ids) - 1
        tokens[start:end], labels[start:end] = ids[:-1], ids[1:]
        loss_mask[start:end], positions[start:end] = mask[1:], np.arange(end - start)
        start = end
    positions[start:] = np.arange(seq_length - start)
    return {
        "tokens": torch.from_numpy(tokens),
        "labels": torch.from_numpy(labels),
        "loss_mask": torch.from_numpy(loss_mask),
        "position_ids": torch.from_numpy(positions),
        "length": torch.tensor(start),
    }


def open_blend(
    blend: list[str], caches: dict[str, TokenCache], rows: RowSettings, endless: bool
) -> Optional[SampleStream]:
    """The stream of a blend of files; None of an empty one.

    Weights are shares of rows, and thus of tokens, padding included. Without any, every
    conversation comes once an epoch.

    Args:
        blend: files, or weights and files in turn.
        caches: by file.
        rows: how rows are made.
        endless: epoch after epoch (training), else the same rows again.
    """
    files, weights = parse_blend(blend, "data")
    if not files:
        return None
    return SampleStream([ConversationSource(caches[f], rows) for f in files], weights, endless)
