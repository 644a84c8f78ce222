"""How sure a score is: intervals, comparisons of two models, spread over seeds and prompts.

Documents are resampled, not items: sentences of one abstract are not independent. A resample
weighs every document by how often it is drawn, so its score is that of `weights @ counts`, and
documents of equal counts share one weight (of a thousand questions two kinds are left: right and
wrong). Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 14.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.tally import Score, Tally

RESAMPLES = 2000
LEVEL = 0.95
SEED = 1234

# Numbers of a block of weights; 32 MiB of them.
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Interval:
    """A score with the bounds between which it lies with the given confidence."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """How far the second of two models is ahead of the first on the same documents.

    Attributes:
        value: second minus first; low, high: its interval.
        p: two-sided, of a difference at least as large between equal models.
        documents: that both answered.
    """

    value: float
    low: float
    high: float
    p: float
    documents: int


@dataclass(frozen=True)
class McNemar:
    """Questions that only one of two models answers rightly, and what their numbers say.

    Attributes:
        only_first, only_second: counts of such questions.
        exact: two-sided p of the binomial test; mid: its mid-p, which is less conservative
            (Fagerland, Lydersen, Laake 2013).
    """

    only_first: int
    only_second: int
    exact: float
    mid: float


@dataclass(frozen=True)
class Spread:
    """One score under several seeds or prompts.

    Attributes:
        std: with n - 1 in the denominator; 0 for a single value.
    """

    values: Mapping[str, float]
    mean: float
    std: float
    low: float
    high: float


def intervals(
    tally: Tally, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, Interval]:
    """The interval of every score of a tally, from the same resamples.

    Bias-corrected and accelerated (BCa); for a score of 0 or 1 at which every resample agrees,
    the Clopper-Pearson bound of a proportion of as many documents, since having seen no error is
    no proof that there is none.

    Raises:
        UserError: there is no document, or `level` or `resamples` make no interval.
    """
    _check(tally, level, resamples)
    names = list(tally.scores)
    drawn = {name: np.empty(resamples) for name in names}
    for rows, sums_bk in _resampled_sums(tally.counts_dk, resamples, seed):
        for name in names:
            drawn[name][rows] = tally.scores[name](sums_bk)
    return {
        name: _interval(drawn[name], tally.counts_dk, tally.scores[name], level) for name in names
    }


def bootstrap(
    tally: Tally,
    score: str = "",
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Interval:
    """The interval of one score, the headline where none is named; see `intervals`."""
    name = score or tally.headline
    one = Tally(tally.documents, tally.counts_dk, {name: tally.scores[name]}, tally.items)
    return intervals(one, level, resamples, seed)[name]


def paired_bootstrap(
    first: Tally,
    second: Tally,
    score: str = "",
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Difference:
    """The difference of a score between two models, over the documents that both answered.

    Both models are scored on the same resamples (Koehn 2004). The p-value doubles the smaller
    share of resamples on either side of no difference, ties counting for both.

    Raises:
        UserError: they share no document.
    """
    name = score or first.headline
    one_dk, two_dk = shared_counts(first, second)
    score_of, k = first.scores[name], one_dk.shape[1]
    _check(first, level, resamples)
    drawn = np.empty(resamples)
    for rows, sums in _resampled_sums(np.hstack([one_dk, two_dk]), resamples, seed):
        drawn[rows] = score_of(sums[:, k:]) - score_of(sums[:, :k])
    value = float(score_of(two_dk.sum(0)) - score_of(one_dk.sum(0)))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p = min(1.0, 2 * (int(tail) + 1) / (resamples + 1))
    return Difference(value, float(low), float(high), p, len(one_dk))


def shared_counts(first: Tally, second: Tally) -> tuple[np.ndarray, np.ndarray]:
    """Counts of the documents that two tallies share, [documents, k] each, in one order.

    Raises:
        UserError: they share none.
    """
    place = {name: row for row, name in enumerate(second.documents)}
    rows = [(row, place[name]) for row, name in enumerate(first.documents) if name in place]
    if not rows:
        raise UserError(
            f"two models are compared on the documents that both answered, but of "
            f"{len(first.documents)} and {len(second.documents)} none is the same; score both on "
            "the same split with the same --limit"
        )
    one, two = np.array(rows).T
    return first.counts_dk[one], second.counts_dk[two]


def mcnemar(only_first: int, only_second: int) -> McNemar:
    """McNemar's test on the questions that only one of two models answers rightly."""
    n, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(n, i) for i in range(fewer + 1))
    point = math.comb(n, fewer)
    exact = min(1.0, 2 * tail / 2**n)
    mid = min(1.0, (2 * tail - point) / 2**n)
    return McNemar(only_first, only_second, exact, mid)


def mcnemar_of(first: Tally, second: Tally, score: str = "") -> McNemar | None:
    """McNemar's test for a score that is a share of right answers.

    None where it does not apply: a document holds several items, or a score of one document that
    is neither 0 nor 1.
    """
    if first.items != len(first.documents) or second.items != len(second.documents):
        return None
    score_of = first.scores[score or first.headline]
    one, two = (score_of(counts) for counts in shared_counts(first, second))
    if not np.isin(one, (0, 1)).all() or not np.isin(two, (0, 1)).all():
        return None
    return mcnemar(int((one > two).sum()), int((two > one).sum()))


def spread(values: Mapping[str, float]) -> Spread:
    """Mean, standard deviation and extremes of a score under several seeds or prompts.

    Raises:
        UserError: there is no value.
    """
    if not values:
        raise UserError("a spread needs at least one score; give seeds or prompts to compare")
    numbers = np.array(list(values.values()), float)
    std = float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0
    return Spread(
        dict(values), float(numbers.mean()), std, float(numbers.min()), float(numbers.max())
    )


def bootstrap_mean(
    tallies: Sequence[Tally],
    score: str = "",
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Interval:
    """The interval of a score's mean over runs (seeds, prompts) on the same documents.

    Raises:
        UserError: there is no run, or the runs did not answer the same documents.
    """
    if not tallies:
        raise UserError("a mean needs at least one run; give one or more seeds")
    first = tallies[0]
    if any(tally.documents != first.documents for tally in tallies):
        raise UserError(
            "runs under several seeds must answer the same documents in the same order; score "
            "all of them with the same split and --limit"
        )
    score_of, k = first.scores[score or first.headline], first.counts_dk.shape[1]

    def mean(sums: np.ndarray) -> np.ndarray:
        parts = [score_of(sums[..., at : at + k]) for at in range(0, sums.shape[-1], k)]
        return np.mean(parts, axis=0)

    counts = np.hstack([tally.counts_dk for tally in tallies])
    runs = Tally(first.documents, counts, {"mean": mean}, first.items)
    return bootstrap(runs, "mean", level, resamples, seed)


def _check(tally: Tally, level: float, resamples: int) -> None:
    if not len(tally.documents):
        raise UserError("an interval needs at least one document; nothing was scored")
    if not 0 < level < 1:
        raise UserError(f"the level of an interval is {level}; it is a share such as 0.95")
    if resamples < 100:
        raise UserError(f"{resamples} resamples do not make an interval; give 100 or more")


def _resampled_sums(
    counts_dk: np.ndarray, resamples: int, seed: int
) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of resamples: which they are, and their sums of counts, [block, k].

    Documents of equal counts are one kind, so only the number drawn of each kind matters.
    """
    kinds_uk, times = np.unique(counts_dk, axis=0, return_counts=True)
    shares = times / times.sum()
    block = max(1, _BLOCK // max(kinds_uk.shape))
    generator = np.random.default_rng(seed)
    for begin in range(0, resamples, block):
        size = min(block, resamples - begin)
        weights_bu = generator.multinomial(len(counts_dk), shares, size=size)
        yield slice(begin, begin + size), weights_bu.astype(float) @ kinds_uk


def _interval(drawn: np.ndarray, counts_dk: np.ndarray, score: Score, level: float) -> Interval:
    value = float(score(counts_dk.sum(0)))
    if np.ptp(drawn) == 0 and value in (0.0, 1.0):
        bound = 1 - ((1 - level) / 2) ** (1 / len(counts_dk))
        return Interval(value, 0.0, bound) if value == 0 else Interval(value, 1 - bound, 1.0)
    shares = _bca_shares(drawn, value, counts_dk, score, level)
    low, high = np.quantile(drawn, shares)
    return Interval(value, float(low), float(high))


def _bca_shares(
    drawn: np.ndarray, value: float, counts_dk: np.ndarray, score: Score, level: float
) -> list[float]:
    """The quantiles of the resamples that bound a BCa interval (Efron 1987)."""
    tails = [(1 - level) / 2, (1 + level) / 2]
    # Ties count half: scores of few documents take few values.
    below = ((drawn < value).mean() + (drawn <= value).mean()) / 2
    left_out = score(counts_dk.sum(0) - counts_dk)
    away = left_out.mean() - left_out
    width = (away**2).sum()
    if not 0 < below < 1 or not width > 0:
        return tails
    normal, acceleration = NormalDist(), (away**3).sum() / (6 * width**1.5)
    bias = normal.inv_cdf(below)
    moved = [bias + normal.inv_cdf(tail) for tail in tails]
    if max(abs(acceleration * z) for z in moved) >= 1:  # a handful of unlike documents
        return tails
    return [normal.cdf(bias + z / (1 - acceleration * z)) for z in moved]
