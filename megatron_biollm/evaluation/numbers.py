"""How well numbers are told: concordance index, mean squared error and r_m squared.

Concordance index: Gönen and Heller, Biometrika 92 (2005): of all pairs with different values, the
share whose predictions are in the same order, equal predictions counting half. r_m squared: Roy et
al., Chemical Biology & Drug Design 79 (2012), as DeepDTA computes it (https://github.com/hkmztrk/
DeepDTA, source/emetrics.py), with the squares of r squared under the root.

Pairs cross documents, which sums over documents cannot tell. So a document's counts also say how
its values stand to those of every other: a sample of documents that holds document d w_d times has
the sums w, w C and w P, and its concordance index is (w C) w / (w P) w.
"""

from collections.abc import Sequence

import numpy as np

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.items import NumberItem, Prediction
from megatron_biollm.evaluation.tally import Tally, need_one_each

# Items, sums of y, p, y², p², y p and (y - p)²; then w, C and P.
_SUMS = 7


def concordance_index(value_i: np.ndarray, told_i: np.ndarray) -> float:
    """Share of pairs in the right order, in O(n log n); 0 where all values are equal.

    Args:
        value_i: true values. told_i: predictions, NaN for none: its pairs are not in order.
    """
    pairs = _pairs(len(value_i)) - _equal_pairs(value_i)
    value_i, told_i = value_i[~np.isnan(told_i)], told_i[~np.isnan(told_i)]
    if not pairs or not len(value_i):
        return 0.0
    rank_i = np.unique(told_i, return_inverse=True)[1]
    # Among equal values predictions descend, so that such pairs never ascend.
    ascending = _ascents(rank_i[np.lexsort((-rank_i, value_i))])
    equal = _equal_pairs(told_i) - _equal_pairs(np.stack([value_i, told_i], 1))
    return (ascending + equal / 2) / pairs


def score_numbers(items: Sequence[NumberItem], predictions: Sequence[Prediction]) -> Tally:
    """Concordance index, mean squared error and r_m squared.

    Args:
        predictions: a number for each item, or None: its pairs are not in order, and for the other
            two scores it counts as 0.

    Raises:
        UserError: not one prediction an item, or one that is no finite number.
    """
    told_i = _told(items, predictions)
    value_i = np.array([one.value for one in items], float)
    documents = tuple(dict.fromkeys(one.document for one in items))
    place = {name: row for row, name in enumerate(documents)}
    document_i = np.array([place[one.document] for one in items], int)
    sums_dk = np.zeros((len(documents), _SUMS))
    np.add.at(sums_dk, document_i, _sums(value_i, np.nan_to_num(told_i)))
    between = _between(value_i, told_i, document_i, len(documents))
    return Tally(
        documents,
        np.hstack([sums_dk, np.eye(len(documents)), *between]),
        {"concordance_index": _concordance, "mse": _mse, "rm2": _rm2},
        len(items),
        int(np.isnan(told_i).sum()),
    )


def _told(items: Sequence[NumberItem], predictions: Sequence[Prediction]) -> np.ndarray:
    need_one_each(items, predictions)
    for item, told in zip(items, predictions, strict=True):
        if told is not None and not (isinstance(told, int | float) and np.isfinite(told)):
            raise UserError(
                f"the prediction for {item.id} is {told!r:.40}; it must be a finite number or None"
            )
    return np.array([np.nan if told is None else told for told in predictions], float)


def _pairs(counts: np.ndarray | int) -> int:
    return int(np.sum(np.asarray(counts) * (np.asarray(counts) - 1) // 2))


def _equal_pairs(rows: np.ndarray) -> int:
    return _pairs(np.unique(rows, axis=0, return_counts=True)[1])


def _ascents(rank_i: np.ndarray) -> int:
    """How many pairs stand in ascending order, not next to each other only.

    Bit by bit from the highest: within the ranks that share all higher bits, each one is paired
    with the zeros before it; then zeros and ones part, in order.
    """
    total, where = 0, np.arange(len(rank_i))
    for bit in reversed(range(int(rank_i.max()).bit_length())):
        one = (rank_i >> bit) & 1
        new = np.diff(rank_i >> (bit + 1), prepend=-1) != 0
        first = np.maximum.accumulate(np.where(new, where, 0))
        zeros = np.cumsum(1 - one) - (1 - one)
        before = zeros - zeros[first]
        total += int(before[one == 1].sum())
        of_group = np.add.reduceat(1 - one, np.flatnonzero(new))[np.cumsum(new) - 1]
        parted = np.empty_like(rank_i)
        parted[first + np.where(one == 1, of_group + where - first - before, before)] = rank_i
        rank_i = parted
    return total


def _sums(value_i: np.ndarray, told_i: np.ndarray) -> np.ndarray:
    """[items, 7]"""
    y, p = value_i, told_i
    return np.stack([np.ones_like(y), y, p, y * y, p * p, y * p, (y - p) ** 2], 1)


def _between(
    value_i: np.ndarray, told_i: np.ndarray, document_i: np.ndarray, documents: int
) -> tuple[np.ndarray, np.ndarray]:
    """C and P, [documents, documents]: pairs in order, and pairs, of the greater value's document
    and the smaller one's."""
    order = np.argsort(document_i, kind="stable")
    value_i, told_i = value_i[order], told_i[order]
    first = np.searchsorted(document_i[order], np.arange(documents + 1))
    ordered_dd, pairs_dd = np.zeros((documents, documents)), np.zeros((documents, documents))
    for row in range(documents):
        own = slice(first[row], first[row + 1])
        greater = value_i[own, None] > value_i
        ahead, level = told_i[own, None] > told_i, told_i[own, None] == told_i
        twice = (greater & ahead).sum(0) * 2 + (greater & level).sum(0)
        ordered_dd[row] = np.add.reduceat(twice, first[:-1]) / 2
        pairs_dd[row] = np.add.reduceat(greater.sum(0), first[:-1])
    return ordered_dd, pairs_dd


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where there is no whole."""
    return np.divide(part, whole, out=np.zeros_like(part, dtype=float), where=whole > 0)


def _concordance(counts_k: np.ndarray) -> np.ndarray:
    weight_d, ordered_d, pairs_d = np.split(counts_k[..., _SUMS:], 3, -1)
    return _share((ordered_d * weight_d).sum(-1), (pairs_d * weight_d).sum(-1))


def _mse(counts_k: np.ndarray) -> np.ndarray:
    return _share(counts_k[..., 6], counts_k[..., 0])


def _rm2(counts_k: np.ndarray) -> np.ndarray:
    """r² (1 - sqrt |r⁴ - r0⁴|), r0² of the line through the origin."""
    n, y, p, yy, pp, yp = (counts_k[..., column] for column in range(6))
    spread_y, spread_p = yy - _share(y * y, n), pp - _share(p * p, n)
    # Rounding leaves a rest where all predictions are equal.
    spread_p = np.where(spread_p > 1e-9 * np.maximum(pp, 1e-300), spread_p, 0)
    r2 = _share((yp - _share(y * p, n)) ** 2, spread_y * spread_p)
    origin = 1 - _share(yy - _share(yp * yp, pp), spread_y)
    return r2 * (1 - np.sqrt(np.abs(r2 * r2 - origin * origin)))
