"""Corpora for benchmarks of data loading: documents as long as biomedical ones, ids at random.

Lengths are log-normal. Their means are those of Meditron's corpus, 350 tokens an abstract and 8,300
a paper (5.48 G tokens of 15.7 M abstracts, 40.7 G tokens of 4.9 M papers,
https://arxiv.org/abs/2311.16079); their spread is the usual one of written texts.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from megatron_biollm.data.layout import HEADER

VOCABULARY = 34_000
_DTYPE, _CODE = np.dtype("<u2"), 8
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Lengths:
    """mean: tokens of a document. spread: standard deviation of their logarithm."""

    mean: float
    spread: float

    def draw(self, documents: int, random: np.random.Generator) -> np.ndarray:
        """int32 [documents], 1 or more."""
        middle = np.log(self.mean) - self.spread**2 / 2
        drawn = random.lognormal(middle, self.spread, documents)
        return np.clip(drawn, 1, 2**30).astype(np.int32)


ABSTRACTS = Lengths(350, 0.5)
PAPERS = Lengths(8300, 0.6)


def write_shards(folder: Path, shards: int, documents: int, lengths: Lengths) -> list[str]:
    """Corpora without ids: PREFIX.bin is a hole of the right size, which no index ever reads.

    documents: of all shards together, which differ by up to a fifth from their mean.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prefixes = [str(folder / f"shard_{number:04d}") for number in range(shards)]
    sizes = np.random.default_rng(0).uniform(0.8, 1.2, shards).cumsum()
    counts = np.diff(np.rint(sizes / sizes[-1] * documents).astype(np.int64), prepend=0).tolist()
    for number, (prefix, count) in enumerate(zip(prefixes, counts, strict=True)):
        drawn = lengths.draw(count, np.random.default_rng(number))
        _write_idx(prefix, drawn)
        with Path(f"{prefix}.bin").open("wb") as file:
            file.truncate(int(drawn.sum(dtype=np.int64)) * _DTYPE.itemsize)
    return prefixes


def write_texts(prefix: Path, tokens: int, lengths: Lengths, seed: int) -> str:
    """A corpus of about `tokens` random ids."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    drawn = lengths.draw(max(1, int(tokens / lengths.mean)), random)
    with Path(f"{prefix}.bin").open("wb") as file:
        left = int(drawn.sum(dtype=np.int64))
        while left:
            count = min(left, _CHUNK)
            file.write(random.integers(0, VOCABULARY, count, _DTYPE).tobytes())
            left -= count
    _write_idx(str(prefix), drawn)
    return str(prefix)


def _write_idx(prefix: str, lengths: np.ndarray) -> None:
    """One sequence a document; the format is described in `megatron_biollm.data.layout`."""
    count = len(lengths)
    pointers = np.zeros(count, "<i8")
    np.cumsum(lengths[:-1], out=pointers[1:])
    pointers *= _DTYPE.itemsize
    with Path(f"{prefix}.idx").open("wb") as file:
        file.write(HEADER + struct.pack("<QBQQ", 1, _CODE, count, count + 1))
        for values in (lengths.astype("<i4"), pointers, np.arange(count + 1, dtype="<i8")):
            file.write(values.tobytes())
