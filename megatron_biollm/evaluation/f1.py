"""Precision, recall and F1 from counts, for one pair of answer and truth or for many at once.

Counts are [..., 3]: how many were right, how many were given, how many were sought. Where there is
one label more, they are [..., 3 * labels], label after label.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from megatron_biollm.evaluation.tally import Score

COUNTS = 3
Measure = Callable[[np.ndarray], np.ndarray]


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Quotients; 0 where nothing is divided by nothing."""
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)


def precision(counts: np.ndarray) -> np.ndarray:
    """Of those given, the part that is right; [..., 3] -> [...]."""
    return _ratio(counts[..., 0], counts[..., 1])


def recall(counts: np.ndarray) -> np.ndarray:
    """Of those sought, the part that was given; [..., 3] -> [...]."""
    return _ratio(counts[..., 0], counts[..., 2])


def f1(counts: np.ndarray) -> np.ndarray:
    """The harmonic mean of precision and recall; [..., 3] -> [...]."""
    return _ratio(2 * counts[..., 0], counts[..., 1] + counts[..., 2])


def by_label(counts: np.ndarray) -> np.ndarray:
    """Counts of labels one after the other as [..., labels, 3]."""
    return counts.reshape(*counts.shape[:-1], -1, COUNTS)


def flat(counts: np.ndarray) -> np.ndarray:
    """Counts of items by label, [items, labels, 3], as [items, 3 * labels]."""
    return counts.reshape(len(counts), counts.shape[1] * COUNTS)


def _pooled(counts: np.ndarray, measure: Measure, labels: tuple[int, ...]) -> np.ndarray:
    every = by_label(counts)
    return measure((every[..., list(labels), :] if labels else every).sum(-2))


def _averaged(counts: np.ndarray, measure: Measure, labels: tuple[int, ...]) -> np.ndarray:
    every = by_label(counts)
    return measure(every[..., list(labels), :] if labels else every).mean(-1)


def micro(labels: Sequence[int], measure: Measure = f1) -> Score:
    """The measure of the counts of some labels together; of all where none are named."""
    return partial(_pooled, measure=measure, labels=tuple(labels))


def macro(labels: Sequence[int], measure: Measure = f1) -> Score:
    """The mean over some labels of each one's measure; over all where none are named."""
    return partial(_averaged, measure=measure, labels=tuple(labels))


def _averaged_found(counts: np.ndarray, measure: Measure) -> np.ndarray:
    every = by_label(counts)
    found = every.any(-1)
    return _ratio(np.where(found, measure(every), 0).sum(-1), found.sum(-1))


def macro_found(measure: Measure = f1) -> Score:
    """The mean over the labels for which anything was sought or given; 0 where there is none."""
    return partial(_averaged_found, measure=measure)
