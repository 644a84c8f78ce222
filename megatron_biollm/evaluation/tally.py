"""Counts of right and wrong by document: what every score, interval and comparison is made from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from megatron_biollm.config import UserError

# Counts, summed over documents, [..., k] -> score, [...]; nothing found where nothing was sought
# must not divide by zero.
Score = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Tally:
    """How the answers to one benchmark were judged.

    Attributes:
        documents: names of the units that are resampled; items of one document share a row.
        counts_dk: sums of each document, float64; what column k means, `scores` knows.
        scores: by name, each a function of summed counts. The first is the benchmark's own.
        items: how many there were.
        unreadable: answers that could not be read.
        parts: by name (a type, a subject), the same of a part of the items.
    """

    documents: tuple[str, ...]
    counts_dk: np.ndarray
    scores: Mapping[str, Score]
    items: int
    unreadable: int = 0
    parts: Mapping[str, "Tally"] = field(default_factory=dict)

    @property
    def headline(self) -> str:
        """Name of the benchmark's own score."""
        return next(iter(self.scores))

    def value(self, name: str = "") -> float:
        """A score over all documents; the headline where no name is given."""
        return float(self.scores[name or self.headline](self.counts_dk.sum(0)))


def by_document(
    documents: Sequence[str], counts_ik: np.ndarray
) -> tuple[tuple[str, ...], np.ndarray]:
    """Sums counts of items, [items, k], over the items of each document.

    Returns:
        The documents in order of appearance, and their counts, [documents, k].
    """
    names = tuple(dict.fromkeys(documents))
    place = {name: row for row, name in enumerate(names)}
    counts_dk = np.zeros((len(names), counts_ik.shape[1]))
    np.add.at(counts_dk, [place[name] for name in documents], counts_ik)
    return names, counts_dk


def need_one_each(items: Sequence, predictions: Sequence) -> None:
    """Refuses predictions that cannot belong to the items.

    Raises:
        UserError: there are more or fewer.
    """
    if len(items) != len(predictions):
        raise UserError(
            f"there are {len(predictions)} predictions for {len(items)} items; give one for each, "
            f"in order, and None where there is no answer"
        )
