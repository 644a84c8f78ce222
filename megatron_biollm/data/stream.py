"""Blended corpora as streams of samples: `stream[i]` depends on the seed and i alone."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch

from megatron_biollm.config import UserError
from megatron_biollm.data.blend import BlendedSamples, Place
from megatron_biollm.data.config import DataConfig, parse_blend
from megatron_biollm.data.gpt_dataset import SampleSettings, Source, split_shares
from megatron_biollm.data.layout import check_index, read_layout
from megatron_biollm.log import get_logger

_SPLITS = ("train", "valid", "test")
_MAX_SEED = 2**32 - 1


class SampleStream:
    """An endless sequence of samples.

    Training goes through epoch after epoch, each in an order of its own; validation and test
    begin again with the same order.

    sources: each with at least one sample. weights: as given, or None for by size.
    """

    def __init__(self, sources: list[Source], weights: Optional[list[str]], endless: bool):
        self.sources = sources
        sizes = [source.num_samples for source in sources]
        self.blend = BlendedSamples(weights or sizes, sizes, endless)

    @property
    def samples_per_epoch(self) -> int:
        """Samples of all sources together, each once."""
        return sum(self.blend.sizes)

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

    def epochs_needed(self, samples: int) -> list[Place]:
        """Every (source, epoch) that the first `samples` samples touch, as places."""
        places = []
        for number, size in enumerate(self.blend.sizes):
            count = self.blend.count(number, samples) if self.blend.endless else size
            places += [Place(number, epoch, 0) for epoch in range(-(-count // size))]
        return places


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
    _check_numbers(seq_length, seed)
    data.check_given()
    cut = SampleSettings(
        seq_length=seq_length,
        seed=seed,
        eod=eod,
        eod_mask_loss=data.eod_mask_loss,
        reset_position_ids=data.reset_position_ids,
        reset_attention_mask=data.reset_attention_mask,
        mmap_bin_files=data.mmap_bin_files,
        cache_path=data.data_cache_path,
    )
    shares = split_shares(data.split) if data.data_path else [(0.0, 1.0)] * len(_SPLITS)
    streams = [
        _build_stream(blend, split, share, cut)
        for blend, split, share in zip(data.blends(), _SPLITS, shares, strict=True)
    ]
    if streams[0] is None:
        raise UserError(
            f"data.split is {data.split!r}, which leaves nothing to training; give the first "
            "number a share"
        )
    return Datasets(*streams)


def ensure_index(
    data: DataConfig,
    seq_length: int,
    seed: int,
    train_samples: int,
    progress: Callable[[Path], None] = lambda folder: None,
) -> list[Path]:
    """Has the sample index of a whole run on disk; what is there already is left as it is.

    Also reads the .idx of every corpus through. Safe when several processes do it at once; in a
    run one rank does, before a barrier. progress: told of every folder.

    Raises:
        UserError: as `build_datasets`, or the index cannot be written.
    """
    for prefix in data.prefixes():
        check_index(read_layout(prefix))
    datasets = build_datasets(data, seq_length, seed, eod=-1)
    folders = []
    for stream in (datasets.train, datasets.valid, datasets.test):
        for place in stream.epochs_needed(train_samples) if stream else ():
            folders.append(stream.sources[place.source].build_index(place.epoch))
            progress(folders[-1])
    return folders


def missing_index(
    data: DataConfig, seq_length: int, seed: int, train_samples: int
) -> dict[str, list[int]]:
    """Epochs by corpus that `ensure_index` would have to build for a whole run.

    Raises:
        UserError: as `build_datasets`.
    """
    datasets = build_datasets(data, seq_length, seed, eod=-1)
    missing: dict[str, list[int]] = {}
    for stream in (datasets.train, datasets.valid, datasets.test):
        for place in stream.epochs_needed(train_samples) if stream else ():
            source = stream.sources[place.source]
            if not source.has_index(place.epoch):
                missing.setdefault(source.prefix, []).append(place.epoch)
    return missing


def _build_stream(
    blend: list[str], split: str, share: Optional[tuple[float, float]], cut: SampleSettings
) -> Optional[SampleStream]:
    prefixes, weights = parse_blend(blend, f"data of {split}")
    if share is None or not prefixes:
        return None
    sources = [Source(prefix, split, share, cut) for prefix in prefixes]
    for source in sources:
        if source.num_samples == 0:
            _too_short(source, must_have=split == "train" and weights is not None)
    kept = [number for number, source in enumerate(sources) if source.num_samples]
    if not kept and split == "train":
        _too_short(max(sources, key=lambda source: source.tokens), must_have=True)
    if not kept:
        get_logger(__name__).warning("no %s samples: that split is left out", split)
        return None
    weights = weights and [weights[number] for number in kept]
    return SampleStream([sources[number] for number in kept], weights, endless=split == "train")


def _too_short(source: Source, must_have: bool) -> None:
    message = (
        f"the {source.split} part of {source.prefix} has {source.tokens} tokens, but one sample "
        f"takes {source.cut.seq_length + 1} (model.seq_length + 1)"
    )
    if must_have:
        raise UserError(
            f"{message}; give more text, a smaller model.seq_length, another data.split, or leave "
            "the corpus out"
        )
    get_logger(__name__).warning("%s; it gives no sample", message)


def _check_numbers(seq_length: int, seed: int) -> None:
    if seq_length < 1:
        raise UserError(f"model.seq_length is {seq_length}; it counts tokens: give 1 or more")
    if not 0 <= seed <= _MAX_SEED:
        raise UserError(f"training.seed is {seed}; give a number from 0 to {_MAX_SEED}")
