"""Blended corpora as streams of samples: `stream[i]` depends on the seed and i alone."""

import hashlib
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import torch

from megatron_biollm.data.config import DataConfig
from megatron_biollm.data.gpt_dataset import Source
from megatron_biollm.data.planned import PlannedStream, plan_streams, settings


class SampleStream(PlannedStream):
    """An endless sequence of samples.

    Training goes through epoch after epoch, each in an order of its own; validation and test
    begin again with the same order. Its sources are `Source`s, opened when a sample is asked for.
    """

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """tokens, labels, position_ids: int64 [seq]; loss_mask: float32 [seq].

        With data.reset_position_ids a document starts where its position is 0; the training step
        derives from that what data.reset_attention_mask hides.
        """
        place = self.blend.locate(index)
        return self.sources[place.source].epoch(place.epoch)[place.sample]

    def sample_hash(self, index: int) -> int:
        """`hash_tokens` of the sample's tokens."""
        return hash_tokens(self[index]["tokens"])

    def provenance(self, index: int) -> dict[str, Any]:
        """source: its prefix. epoch, sample: the sample's place in it. documents: the numbers of
        the sequences it is made of, in order.
        """
        place = self.blend.locate(index)
        source = self.sources[place.source]
        return {
            "source": source.prefix,
            "epoch": place.epoch,
            "sample": place.sample,
            "documents": source.epoch(place.epoch).sequences(place.sample),
        }


@dataclass
class Datasets:
    """The streams of a run; None where a split has no share or too few tokens for a sample."""

    train: SampleStream
    valid: Optional[SampleStream]
    test: Optional[SampleStream]


def hash_tokens(tokens: torch.Tensor | np.ndarray) -> int:
    """64 bits of the token ids, the same on every machine and for every integer dtype."""
    ids = np.ascontiguousarray(np.asarray(tokens), dtype="<i8")
    return int.from_bytes(hashlib.blake2b(ids.tobytes(), digest_size=8).digest(), "little")


def build_datasets(data: DataConfig, seq_length: int, seed: int, eod: int) -> Datasets:
    """Opens the corpora of a run.

    seq_length: tokens in a sample. seed: decides the order. eod: id that ends a document.

    Raises:
        UserError: no corpus, one is missing or damaged, or training has too few tokens.
    """
    cut = settings(data, seq_length, seed, eod)
    return Datasets(*plan_streams(data, cut, Source, SampleStream))
