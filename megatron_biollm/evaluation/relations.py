"""Scores of relations: between two marked mentions, or as triples of a document.

Of pairs, the label 0 means that there is no relation: telling it earns nothing, and scores count
the other labels only, as scikit-learn's `f1_score(labels=positive, average="micro")`. An answer
that cannot be read tells no relation.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.f1 import (
    COUNTS,
    f1,
    flat,
    macro,
    micro,
    precision,
    recall,
)
from megatron_biollm.evaluation.items import ChoiceItem, Prediction, Triple, TripleItem
from megatron_biollm.evaluation.tally import Score, Tally, by_document, need_one_each

OVERALL = (("f1", f1), ("precision", precision), ("recall", recall))


def count_labels(sought: np.ndarray, given: np.ndarray, labels: int) -> np.ndarray:
    """How many of each label 1 to `labels` - 1 are right, given and sought: [items, labels, 3].

    The last column of labels takes relations of any label.
    """
    is_sought = sought[:, None] == np.arange(1, labels)
    is_given = given[:, None] == np.arange(1, labels)
    any_sought, any_given = is_sought.any(1), is_given.any(1)
    counts = np.zeros((len(sought), labels, COUNTS))
    counts[:, :-1] = np.stack([is_sought & is_given, is_given, is_sought], axis=-1)
    counts[:, -1] = np.stack([any_sought & any_given, any_given, any_sought], axis=-1)
    return counts


def pair_tally(
    items: Sequence[ChoiceItem],
    predictions: Sequence[Prediction],
    names: Sequence[str],
    headline: str = "micro_f1",
) -> Tally:
    """Micro- and macro-F1 over the relations, and of finding any; each relation by its name.

    Args:
        items: with the same choices, the first of which is that there is no relation.
        predictions: the index of a choice, or None, for each.
        names: of the other choices.
        headline: which score comes first.

    Raises:
        UserError: not one prediction for each item, or one that is no index of a choice.
    """
    need_one_each(items, predictions)
    labels = len(names) + 1
    given = _indices(items, predictions, labels)
    counts = count_labels(np.array([one.answer for one in items], dtype=int), given, labels)
    relations = range(len(names))
    scores = {
        "micro_f1": micro(relations),
        "macro_f1": macro(relations),
        "precision": micro(relations, precision),
        "recall": micro(relations, recall),
        "detection_f1": micro([len(names)]),
    }
    scores = {headline: scores[headline]} | scores
    documents, counts_dk = by_document([one.document for one in items], flat(counts))
    parts = {
        name: _part(documents, counts_dk[:, COUNTS * place : COUNTS * (place + 1)], len(items))
        for place, name in enumerate(names)
    }
    unreadable = sum(one is None for one in predictions)
    return Tally(documents, counts_dk, scores, len(items), unreadable, parts)


def _part(documents: tuple[str, ...], counts_dk: np.ndarray, items: int) -> Tally:
    return Tally(documents, counts_dk, dict(OVERALL), items)


def _indices(
    items: Sequence[ChoiceItem], predictions: Sequence[Prediction], labels: int
) -> np.ndarray:
    for item, one in zip(items, predictions, strict=True):
        if one is not None and not (isinstance(one, (int, np.integer)) and 0 <= one < labels):
            raise UserError(f"{item.id}: {one!r} is no choice; give 0 to {labels - 1}, or nothing")
    return np.array([0 if one is None else one for one in predictions], dtype=int)


def triple_tally(
    items: Sequence[TripleItem],
    predictions: Sequence[Prediction],
    key: Callable[[Triple], Hashable] = tuple,
) -> Tally:
    """Micro-F1 of the triples of all documents.

    Args:
        key: what of a triple is compared.

    Raises:
        UserError: not one prediction for each item.
    """
    need_one_each(items, predictions)
    rows = [
        _compare({key(one) for one in item.triples}, {key(one) for one in told or ()})
        for item, told in zip(items, predictions, strict=True)
    ]
    return counted(items, predictions, np.array(rows, float).reshape(-1, COUNTS), dict(OVERALL))


def _compare(sought: set[Hashable], given: set[Hashable]) -> tuple[int, int, int]:
    return len(sought & given), len(given), len(sought)


def counted(
    items: Sequence[TripleItem] | Sequence[ChoiceItem],
    predictions: Iterable[Prediction],
    counts_ik: np.ndarray,
    scores: dict[str, Score],
) -> Tally:
    """A tally of counts of items, [items, k], with documents and unreadable answers."""
    documents, counts_dk = by_document([one.document for one in items], counts_ik)
    unreadable = sum(one is None for one in predictions)
    return Tally(documents, counts_dk, scores, len(items), unreadable)
