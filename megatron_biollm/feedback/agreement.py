"""How far raters agree: Krippendorff's alpha, Cohen's kappa, shares, each with its interval.

Alpha: Krippendorff, Content Analysis (2004), chapter 11, nominal data, missing values allowed.
Kappa: Cohen, Educational and Psychological Measurement 20 (1960), on the units both judged.
Intervals: percentile bootstrap over units. Shares: Wilson's score interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Optional

import krippendorff
import numpy as np

# Of fewer units a bootstrap says nothing.
_LEAST_UNITS = 10
_RESAMPLES = 1000
_Z = 1.959964  # 97.5 % of the normal distribution
# One row a rater, one column a unit, None where the rater did not judge it.
Ratings = Sequence[Sequence[Optional[str]]]


@dataclass(frozen=True)
class Estimate:
    """value: None where it is not defined. low, high: 95 % interval, None below 10 units. n: units
    that count."""

    value: Optional[float]
    low: Optional[float]
    high: Optional[float]
    n: int


def text(found: Estimate, form: str = "{:.2f}") -> str:
    """0.72 (0.67 to 0.77), or a dash where it is not defined."""
    if found.value is None:
        return "–"
    if found.low is None or found.high is None:
        return form.format(found.value)
    return f"{form} ({form} to {form})".format(found.value, found.low, found.high)


def alpha(ratings: Ratings, seed: int = 0) -> Estimate:
    """Nominal alpha of all raters; None where no unit has two ratings or all are the same."""
    counts = _counts(ratings)
    counts = counts[counts.sum(1) >= 2]
    if counts.shape[0] == 0 or (counts.sum(0) > 0).sum() < 2:
        return Estimate(None, None, None, counts.shape[0])
    value = krippendorff.alpha(value_counts=counts, level_of_measurement="nominal")
    # Units that were rated alike are drawn together: the same distribution, and far less work.
    patterns, times = np.unique(counts, axis=0, return_counts=True)
    drawn = _alphas(patterns, _draws(times, seed))
    return Estimate(float(value), *_interval(drawn, counts.shape[0]), counts.shape[0])


def kappa(
    first: Sequence[Optional[str]], second: Sequence[Optional[str]], seed: int = 0
) -> Estimate:
    """Cohen's kappa of two raters; None where they share no unit or both always say the same."""
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if None not in (a, b)]
    if not pairs:
        return Estimate(None, None, None, 0)
    names = {name: place for place, name in enumerate(sorted({n for pair in pairs for n in pair}))}
    table = np.zeros((len(names), len(names)), int)
    for a, b in pairs:
        table[names[a], names[b]] += 1
    (value,) = _kappas(table[None])
    if np.isnan(value):
        return Estimate(None, None, None, len(pairs))
    drawn = _kappas(_draws(table.ravel(), seed).reshape(-1, *table.shape))
    return Estimate(float(value), *_interval(drawn, len(pairs)), len(pairs))


def kappas(ratings: Ratings, seed: int = 0) -> dict[tuple[int, int], Estimate]:
    """Kappa of every two raters, by their rows."""
    rows = range(len(ratings))
    return {(i, j): kappa(ratings[i], ratings[j], seed) for i, j in combinations(rows, 2)}


def share(hits: int, n: int) -> Estimate:
    """hits of n, with Wilson's interval."""
    if n == 0:
        return Estimate(None, None, None, 0)
    p, z2 = hits / n, _Z**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return Estimate(p, max(0.0, middle - half), min(1.0, middle + half), n)


def _counts(ratings: Ratings) -> np.ndarray:
    """[units, values]: how many raters gave each value."""
    values = sorted({value for row in ratings for value in row if value is not None})
    places = {value: place for place, value in enumerate(values)}
    counts = np.zeros((len(ratings[0]) if ratings else 0, len(values)), int)
    for row in ratings:
        for unit, value in enumerate(row):
            if value is not None:
                counts[unit, places[value]] += 1
    return counts


def _alphas(patterns: np.ndarray, times: np.ndarray) -> np.ndarray:
    """[resamples] nominal alphas of patterns [patterns, values] that occur times [resamples,
    patterns]; units with fewer than two ratings are left out already."""
    size = patterns.sum(1)
    agreeing = (patterns * (patterns - 1)).sum(1) / (size - 1)
    totals = times @ patterns
    n = totals.sum(1)
    observed = 1 - times @ agreeing / n
    expected = 1 - (totals * (totals - 1)).sum(1) / (n * (n - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - observed / expected, np.nan)


def _kappas(tables: np.ndarray) -> np.ndarray:
    """[resamples] kappas of tables [resamples, values, values]."""
    joint = tables / tables.sum((1, 2), keepdims=True)
    observed = np.trace(joint, axis1=1, axis2=2)
    expected = (joint.sum(2) * joint.sum(1)).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected < 1, (observed - expected) / (1 - expected), np.nan)


def _draws(times: np.ndarray, seed: int) -> np.ndarray:
    """[resamples, kinds]: how often each kind of unit is drawn, of kinds that occur `times`."""
    n = times.sum()
    return np.random.default_rng(seed).multinomial(n, times / n, _RESAMPLES)


def _interval(drawn: np.ndarray, units: int) -> tuple[Optional[float], Optional[float]]:
    drawn = drawn[~np.isnan(drawn)]
    if units < _LEAST_UNITS or len(drawn) == 0:
        return None, None
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)
