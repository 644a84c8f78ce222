"""What of each corpus a split takes, known from a few bytes of its .idx: neither torch nor core."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from megatron_biollm.data.config import parse_split
from megatron_biollm.data.epoch_index import EpochIndex, EpochKey
from megatron_biollm.data.index_store import IndexStore
from megatron_biollm.data.layout import Layout, fingerprint, read_layout
from megatron_biollm.data.sample_index import compute_index

Share = tuple[float, float]


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


def split_shares(split: str) -> list[Optional[Share]]:
    """`969,30,1` to core's bookends of train, valid and test; None for a share of 0."""
    ends = list(itertools.accumulate(parse_split(split), initial=0.0))
    return [(first, end) if end > first else None for first, end in itertools.pairwise(ends)]


class Corpora:
    """Corpora of a run, each looked at once, however many splits take a part of it."""

    def __init__(self, cache_path: Optional[str] = None):
        self.cache_path = cache_path
        self._layouts: dict[str, Layout] = {}
        self._fingerprints: dict[str, str] = {}
        self._stores: dict[Path, IndexStore] = {}

    def layout(self, prefix: str) -> Layout:
        """Raises UserError where the corpus is missing or damaged (`read_layout`)."""
        if prefix not in self._layouts:
            self._layouts[prefix] = read_layout(prefix)
        return self._layouts[prefix]

    def fingerprint(self, prefix: str) -> str:
        if prefix not in self._fingerprints:
            self._fingerprints[prefix] = fingerprint(self.layout(prefix))
        return self._fingerprints[prefix]

    def store(self, prefix: str) -> IndexStore:
        """The folder that holds the sample index of a corpus."""
        folder = Path(self.cache_path) if self.cache_path else Path(prefix).parent / "index"
        return self._stores.setdefault(folder, IndexStore(folder))


class Part:
    """One corpus's part of one split: the same samples every epoch, in another order.

    prefix: the corpus. split: "train", "valid" or "test". share: bookends of its sequences.
    first, end: the range of its sequences. num_samples: samples in an epoch; 0 if the part is too
    short for one.
    """

    def __init__(
        self,
        prefix: str,
        split: str,
        share: Share,
        cut: SampleSettings,
        corpora: Optional[Corpora] = None,
    ):
        self.prefix, self.split, self.cut = prefix, split, cut
        self.corpora = corpora or Corpora(cut.cache_path)
        self.layout = self.corpora.layout(prefix)
        # Core's rounding, so that a corpus splits where Megatron-LM splits it.
        self.first, self.end = (round(end * float(self.layout.sequences)) for end in share)
        self.tokens = self.layout.tokens_between(self.first, self.end)
        self.num_samples = max(self.tokens - 1, 0) // cut.seq_length
        self._keys: dict[int, EpochKey] = {}

    @property
    def store(self) -> IndexStore:
        return self.corpora.store(self.prefix)

    @property
    def older(self) -> Optional[Path]:
        """Where earlier versions kept the index, if not in the same folder."""
        return None if self.cut.cache_path else Path(f"{self.prefix}.index")

    def key(self, epoch: int) -> EpochKey:
        if epoch not in self._keys:
            cut, digest = self.cut, self.corpora.fingerprint(self.prefix)
            given = (self.first, self.end, cut.seq_length, cut.seed, epoch)
            self._keys[epoch] = EpochKey(digest, *given)
        return self._keys[epoch]

    def find_index(self, epoch: int) -> Optional[EpochIndex]:
        """The index of an epoch from the disk; None if it is not there."""
        return self.store.find(self.key(epoch), self.older)

    def compute_index(
        self, epoch: int, random: Optional[np.random.RandomState] = None
    ) -> EpochIndex:
        """As `sample_index.compute_index`."""
        return compute_index(self.layout.sequence_lengths(), self.key(epoch), random)

    def build_index(self, epoch: int) -> Path:
        """Makes sure that the index of an epoch is on disk and returns its folder."""
        return build_indices(self.store, epoch, [self])[0]


def build_indices(
    store: IndexStore,
    epoch: int,
    parts: list[Part],
    between: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Has the index of an epoch of these parts in the store; returns the folders, sorted.

    Those that are missing come into one folder, one after another, each forgotten once written.
    between: told the prefix of each corpus that was looked at or indexed.
    """
    missing = {part.key(epoch): part for part in parts if part.find_index(epoch) is None}
    if missing:
        random = np.random.RandomState()

        def computed() -> Iterator[EpochIndex]:
            for part in missing.values():
                yield part.compute_index(epoch, random)
                between(part.prefix)

        store.save({key: part.num_samples for key, part in missing.items()}, computed())
    return sorted({store.place(part.key(epoch), part.older) for part in parts})
