"""Scores of texts that may have any number of labels."""

from collections.abc import Sequence
from functools import partial

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
from megatron_biollm.evaluation.items import LabelsItem, Prediction
from megatron_biollm.evaluation.tally import Score, Tally, by_document, need_one_each

# After the counts of the labels: the F1 of each text, and 1.
_PER_TEXT = 2


def labels_tally(
    items: Sequence[LabelsItem],
    predictions: Sequence[Prediction],
    headline: str = "micro_f1",
    choices: Sequence[str] = (),
) -> Tally:
    """Micro- and macro-F1 over the labels, and the mean over texts of each one's F1.

    Of a text without labels, for which none is told, the F1 is 1.

    Args:
        items: with the same choices.
        predictions: labels, or None, for each.
        headline: which score comes first.
        choices: of the items; needed to tell what counts mean where there are no items.

    Raises:
        UserError: not one prediction for each item, or a label that is no choice.
    """
    need_one_each(items, predictions)
    choices = choices or (items[0].choices if items else ())
    sought = _matrix([one.labels for one in items], items, choices)
    given = _matrix([one or () for one in predictions], items, choices)
    counts = np.stack([sought & given, given, sought], axis=-1).astype(float)
    whole = counts.sum(1)
    per_text = np.where(whole[:, 1:].any(1), f1(whole), 1.0)
    columns = np.column_stack([flat(counts), per_text, np.ones(len(items))])
    documents, counts_dk = by_document([one.document for one in items], columns)
    scores = _scores(len(choices))
    unreadable = sum(one is None for one in predictions)
    parts = {
        name: Tally(
            documents,
            counts_dk[:, COUNTS * place : COUNTS * (place + 1)],
            {"f1": f1, "precision": precision, "recall": recall},
            len(items),
        )
        for place, name in enumerate(choices)
    }
    ordered = {headline: scores[headline]} | scores
    return Tally(documents, counts_dk, ordered, len(items), unreadable, parts)


def _matrix(
    labels: Sequence[Sequence[str]], items: Sequence[LabelsItem], choices: Sequence[str]
) -> np.ndarray:
    """Which labels each text has, [items, labels]."""
    place = {name: column for column, name in enumerate(choices)}
    has = np.zeros((len(items), len(choices)), dtype=bool)
    for row, (item, some) in enumerate(zip(items, labels, strict=True)):
        for name in some:
            if name not in place:
                raise UserError(f"{item.id}: {name!r} is none of {', '.join(choices)}")
            has[row, place[name]] = True
    return has


def _scores(labels: int) -> dict[str, Score]:
    every = range(labels)
    return {
        "micro_f1": partial(_of_labels, score=micro(every)),
        "macro_f1": partial(_of_labels, score=macro(every)),
        "example_f1": _mean_of_texts,
        "precision": partial(_of_labels, score=micro(every, precision)),
        "recall": partial(_of_labels, score=micro(every, recall)),
    }


def _of_labels(counts: np.ndarray, score: Score) -> np.ndarray:
    return score(counts[..., :-_PER_TEXT])


def _mean_of_texts(counts: np.ndarray) -> np.ndarray:
    return counts[..., -2] / np.maximum(counts[..., -1], 1)
