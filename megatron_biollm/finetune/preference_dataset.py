"""Preference samples: `source.epoch(e)[i]` is one, of two rows; a `SampleStream` blends files."""

from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import torch

from megatron_biollm.data.config import parse_blend
from megatron_biollm.data.stream import SampleStream
from megatron_biollm.finetune.encoded_preferences import EncodedPreferences

_OPEN_EPOCHS = 2  # neighbouring samples of a blend lie at most on both sides of one border


@dataclass(frozen=True)
class RowSettings:
    """seq_length: places in a row. pad: id of the places that are left. seed: of the order."""

    seq_length: int
    pad: int
    seed: int


class PreferenceSource:
    """One file's samples, epoch after epoch, each in an order of its own.

    Attributes:
        prefix: the file. num_samples: in an epoch.
        reference: log p of both rows of each sample by the reference model, float64 [samples, 2],
            once it is known.
    """

    def __init__(self, data: EncodedPreferences, rows: RowSettings) -> None:
        self.prefix, self.data, self.rows = data.prefix, data, rows
        self.num_samples = len(data)
        self.reference: Optional[np.ndarray] = None
        self._epochs: dict[int, PreferenceEpoch] = {}

    def epoch(self, epoch: int) -> "PreferenceEpoch":
        """The samples of one epoch in their order."""
        if epoch not in self._epochs:
            while len(self._epochs) >= _OPEN_EPOCHS:
                del self._epochs[next(iter(self._epochs))]
            generator = np.random.default_rng([self.rows.seed, epoch])
            self._epochs[epoch] = PreferenceEpoch(self, generator.permutation(self.num_samples))
        return self._epochs[epoch]

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        """Sample `number` in the file's own order.

        tokens, labels, position_ids: int64 [2, s]; loss_mask: float32 [2, s], 1 where the label
        belongs to the answer; length: int64 [2], tokens that are no padding; margin: float32;
        label: bool; reference: float64 [2], where it is known.
        """
        places = self.rows.seq_length, self.rows.pad
        rows = [make_row(*self.data.row(number, which), *places) for which in (0, 1)]
        sample = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        sample["margin"] = torch.tensor(float(self.data.margin[number]))
        sample["label"] = torch.tensor(bool(self.data.label[number]))
        if self.reference is not None:
            sample["reference"] = torch.from_numpy(np.array(self.reference[number]))
        return sample


@dataclass(frozen=True)
class PreferenceEpoch:
    """The samples of one epoch."""

    source: PreferenceSource
    order: np.ndarray

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.source[self.order[index]]

    def sequences(self, index: int) -> list[int]:
        """The line of the file that a sample is."""
        return [int(self.source.data.line[self.order[index]])]


def make_row(
    tokens: np.ndarray, answer: np.ndarray, seq_length: int, pad: int
) -> dict[str, torch.Tensor]:
    """One row as the model takes it; every token but the last predicts the next.

    The last one is an input too, for a reward model scores there. tokens: at most seq_length ids.
    answer: where they belong to the answer.
    """
    ids = torch.from_numpy(np.array(tokens, np.int64))
    length = len(ids)
    row = {
        "tokens": torch.full((seq_length,), pad),
        "labels": torch.full((seq_length,), pad),
        "loss_mask": torch.zeros(seq_length),
        "position_ids": torch.arange(seq_length),
        "length": torch.tensor(length),
    }
    row["tokens"][:length] = ids
    row["labels"][: length - 1] = ids[1:]
    row["loss_mask"][: length - 1] = torch.from_numpy(np.array(answer[1:], np.float32))
    return row


def open_blend(
    blend: list[str], files: dict[str, PreferenceSource], endless: bool
) -> Optional[SampleStream]:
    """The stream of a blend; None of an empty one.

    Args:
        blend: files, or weights and files in turn; without weights every sample comes once an
            epoch.
        files: by name.
        endless: epoch after epoch (training), else the same samples again.
    """
    names, weights = parse_blend(blend, "data")
    if not names:
        return None
    return SampleStream([files[name] for name in names], weights, endless)
