"""Which n-grams of items a stream of texts holds, and in which document most of an item is.

n-grams are 64-bit hashes made elsewhere. Items are tens of thousands and texts billions of words,
so a hash of a text first meets a table of bits, and only the few that pass are looked up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_FILTER_BITS = 25
NOWHERE = -1


@dataclass(frozen=True)
class GramIndex:
    """The n-grams of all items.

    hashes: uint64, sorted, each once. items: int32, those that have gram g are
    `items[edges[g]:edges[g + 1]]`. totals: int32, different n-grams of each item; 0 for one that
    is too short to be looked for.
    """

    hashes: np.ndarray
    edges: np.ndarray
    items: np.ndarray
    totals: np.ndarray

    @classmethod
    def build(cls, grams: Sequence[np.ndarray]) -> "GramIndex":
        """From the hashes of each item."""
        own = [np.unique(one) for one in grams]
        totals = np.array([len(one) for one in own], np.int32)
        owners = np.repeat(np.arange(len(own), dtype=np.int32), totals)
        hashes = np.concatenate([*own, np.empty(0, np.uint64)])
        order = np.argsort(hashes, kind="stable")
        unique, first = np.unique(hashes[order], return_index=True)
        return cls(unique, np.append(first, len(order)), owners[order], totals)


@dataclass
class Found:
    """What has been met so far.

    grams: bool, one for each n-gram. most: int32, of each item the most n-grams that one document
    holds; where: int64, that document, or `NOWHERE`.
    """

    grams: np.ndarray
    most: np.ndarray
    where: np.ndarray

    @classmethod
    def nothing(cls, index: GramIndex) -> "Found":
        """Before any text."""
        items = len(index.totals)
        return cls(
            np.zeros(len(index.hashes), bool),
            np.zeros(items, np.int32),
            np.full(items, NOWHERE, np.int64),
        )

    def add(self, other: "Found", documents_before: int) -> None:
        """Takes in what was met in texts that follow; of equal documents the first one stays.

        documents_before: number of the first of the other's documents.
        """
        self.grams |= other.grams
        better = other.most > self.most
        self.most[better] = other.most[better]
        self.where[better] = other.where[better] + documents_before

    def shares(self, index: GramIndex) -> np.ndarray:
        """Of each item the share of its n-grams that were met anywhere; 0 of one without any."""
        grams = np.repeat(self.grams, np.diff(index.edges))
        met = np.bincount(index.items[grams], minlength=len(index.totals))
        return met / np.maximum(index.totals, 1)


class Finder:
    """Looks for the n-grams of an index; takes 32 MiB."""

    def __init__(self, index: GramIndex):
        self.index = index
        self.filter = np.zeros(1 << _FILTER_BITS, bool)
        self.filter[_place(index.hashes)] = True

    def look(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions in `hashes` of n-grams that are in the index, and which ones they are."""
        if not len(self.index.hashes):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        passed = np.flatnonzero(self.filter[_place(hashes)])
        wanted = hashes[passed]
        gram = np.searchsorted(self.index.hashes, wanted)
        gram[gram == len(self.index.hashes)] = 0
        same = self.index.hashes[gram] == wanted
        return passed[same], gram[same]

    def note(self, found: Found, grams: np.ndarray, documents: np.ndarray) -> None:
        """Takes down n-grams that were met, and in which documents, from 0 to 2**31."""
        found.grams[grams] = True
        pairs = np.unique(grams.astype(np.int64) << 32 | documents)
        grams, documents = pairs >> 32, pairs & 0xFFFFFFFF
        first = self.index.edges[grams]
        counts = self.index.edges[grams + 1] - first
        entry = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        items = self.index.items[entry].astype(np.int64)
        both, times = np.unique(items << 32 | np.repeat(documents, counts), return_counts=True)
        # Fewest first, so that what is assigned last is an item's best; the earlier of equal ones.
        order = np.lexsort((-(both & 0xFFFFFFFF), times))
        best = Found.nothing(self.index)
        best.most[both[order] >> 32] = times[order]
        best.where[both[order] >> 32] = both[order] & 0xFFFFFFFF
        found.add(best, 0)


def _place(hashes: np.ndarray) -> np.ndarray:
    return hashes >> np.uint64(64 - _FILTER_BITS)
