"""Which parts of which corpora a run reads, and in which proportions; the index of all of it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Optional

from megatron_biollm.config import UserError
from megatron_biollm.data.blend import BlendedSamples, Place
from megatron_biollm.data.config import DataConfig, parse_blend
from megatron_biollm.data.layout import check_index
from megatron_biollm.data.parts import (
    Corpora,
    Part,
    SampleSettings,
    Share,
    build_indices,
    split_shares,
)
from megatron_biollm.log import get_logger

SPLITS = ("train", "valid", "test")
_MAX_SEED = 2**32 - 1


class PlannedStream:
    """A sequence of samples as it is known without reading one.

    sources: each with at least one sample. weights: as given, or None for by size. endless:
    training, which goes on with epoch after epoch; validation and test begin again.
    """

    def __init__(self, sources: Sequence[Any], weights: Optional[list[str]], endless: bool):
        self.sources = list(sources)
        sizes = [source.num_samples for source in self.sources]
        self.blend = BlendedSamples(weights or sizes, sizes, endless)

    @property
    def samples_per_epoch(self) -> int:
        """Samples of all sources together, each once."""
        return sum(self.blend.sizes)

    def epochs_needed(self, samples: int) -> list[Place]:
        """Every (source, epoch) that the first `samples` samples touch, as places."""
        places = []
        for number, size in enumerate(self.blend.sizes):
            count = self.blend.count(number, samples) if self.blend.endless else size
            places += [Place(number, epoch, 0) for epoch in range(-(-count // size))]
        return places


def plan_streams(
    data: DataConfig,
    cut: SampleSettings,
    part: Callable[..., Part] = Part,
    stream: Callable[..., PlannedStream] = PlannedStream,
) -> list[Optional[Any]]:
    """A `stream` of `part`s for train, valid and test; None where one has no share or no sample.

    Raises:
        UserError: no corpus, one is missing or damaged, or training has too few tokens.
    """
    _check_numbers(cut.seq_length, cut.seed)
    data.check_given()
    shares = split_shares(data.split) if data.data_path else [(0.0, 1.0)] * len(SPLITS)
    corpora, streams = Corpora(cut.cache_path), []
    for blend, split, share in zip(data.blends(), SPLITS, shares, strict=True):
        prefixes, weights = parse_blend(blend, f"data of {split}")
        parts = _parts(prefixes, split, share, cut, corpora, part)
        kept = _long_enough(parts, weights) if parts else []
        weights = weights and [weights[number] for number in kept]
        chosen = [parts[number] for number in kept]
        streams.append(stream(chosen, weights, endless=split == "train") if kept else None)
    if streams[0] is None:
        raise UserError(
            f"data.split is {data.split!r}, which leaves nothing to training; give the first "
            "number a share"
        )
    return streams


def ensure_index(
    data: DataConfig,
    seq_length: int,
    seed: int,
    train_samples: int,
    progress: Callable[[str], None] = lambda prefix: None,
) -> list[Path]:
    """Has the sample index of a whole run on disk; what is there already is left as it is.

    Also reads the .idx of every corpus through. Safe when several processes do it at once; in a
    run one rank does, before a barrier. progress: told the prefix of every corpus that was checked
    or indexed, once each time.

    Returns:
        The folders that hold the index, sorted.

    Raises:
        UserError: as `plan_streams`, or the index cannot be written.
    """
    streams = plan_streams(data, _cut(data, seq_length, seed))
    sources = [source for stream in streams if stream for source in stream.sources]
    for prefix, layout in {source.prefix: source.layout for source in sources}.items():
        check_index(layout)
        progress(prefix)
    folders: set[Path] = set()
    for (store, epoch), parts in _by_store(streams, train_samples).items():
        folders |= set(build_indices(store, epoch, parts, progress))
    return sorted(folders)


def missing_index(
    data: DataConfig, seq_length: int, seed: int, train_samples: int
) -> dict[str, list[int]]:
    """Epochs by corpus that `ensure_index` would have to build for a whole run.

    Raises:
        UserError: as `plan_streams`.
    """
    missing: dict[str, list[int]] = {}
    streams = plan_streams(data, _cut(data, seq_length, seed))
    for (_, epoch), parts in _by_store(streams, train_samples).items():
        for part in parts:
            if part.find_index(epoch) is None:
                missing.setdefault(part.prefix, []).append(epoch)
    return missing


def settings(data: DataConfig, seq_length: int, seed: int, eod: int) -> SampleSettings:
    """How a run cuts its samples. eod: id that ends a document."""
    return SampleSettings(
        seq_length=seq_length,
        seed=seed,
        eod=eod,
        eod_mask_loss=data.eod_mask_loss,
        reset_position_ids=data.reset_position_ids,
        reset_attention_mask=data.reset_attention_mask,
        mmap_bin_files=data.mmap_bin_files,
        cache_path=data.data_cache_path,
    )


def _cut(data: DataConfig, seq_length: int, seed: int) -> SampleSettings:
    return settings(data, seq_length, seed, eod=-1)  # the order does not depend on it


def _by_store(streams: list[Optional[PlannedStream]], samples: int) -> dict[Any, list[Part]]:
    """Parts by the store of their index and the epoch."""
    found: dict[Any, list[Part]] = {}
    for stream in filter(None, streams):
        for place in stream.epochs_needed(samples):
            part = stream.sources[place.source]
            found.setdefault((part.store, place.epoch), []).append(part)
    return found


def _parts(
    prefixes: list[str],
    split: str,
    share: Optional[Share],
    cut: SampleSettings,
    corpora: Corpora,
    part: Callable[..., Part],
) -> list[Part]:
    if share is None:
        return []
    return [part(prefix, split, share, cut, corpora) for prefix in prefixes]


def _long_enough(parts: list[Part], weights: Optional[list[str]]) -> list[int]:
    """Numbers of the parts with a sample; says of the others, and refuses those that must have."""
    split = parts[0].split
    for part in parts:
        if part.num_samples == 0:
            _too_short(part, must_have=split == "train" and weights is not None)
    kept = [number for number, part in enumerate(parts) if part.num_samples]
    if not kept and split == "train":
        _too_short(max(parts, key=lambda part: part.tokens), must_have=True)
    if not kept:
        get_logger(__name__).warning("no %s samples: that split is left out", split)
    return kept


def _too_short(part: Part, must_have: bool) -> None:
    message = (
        f"the {part.split} part of {part.prefix} has {part.tokens} tokens, but one sample "
        f"takes {part.cut.seq_length + 1} (model.seq_length + 1)"
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
