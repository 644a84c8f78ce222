"""Accuracy and macro-F1 of chosen answers, overall, by group and averaged over groups."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmark import Convention
from megatron_biollm.evaluation.items import ChoiceItem, Prediction
from megatron_biollm.evaluation.tally import Score, Tally, by_document, need_one_each

UNREADABLE = Convention(
    "unreadable",
    ("wrong", "first"),
    "an answer that cannot be read counts as wrong, or as the first choice (MIRAGE)",
)
_NONE = -1


def score_choices(
    items: Sequence[ChoiceItem],
    predictions: Sequence[Prediction],
    unreadable: str = "wrong",
    classes: Sequence[str] = (),
    over_groups: bool = False,
) -> Tally:
    """Counts of right answers; accuracy is the first score.

    Args:
        predictions: of each item the index of a choice, or None where no answer could be read.
        unreadable: "wrong", or "first": None counts as choice 0.
        classes: where all items have the same choices, these: also score `macro_f1`, F1 of each
            choice against the others, averaged. A choice never right nor chosen has F1 0.
        over_groups: also score `group_accuracy`: accuracy of each group, averaged over the groups.

    Raises:
        UserError: a prediction that is no choice of its item, not one prediction an item, or an
            item whose choices are not `classes`.
    """
    chosen_i, answer_i = _chosen(items, predictions), np.array([one.answer for one in items], int)
    missing = int((chosen_i == _NONE).sum())
    if unreadable == "first":
        chosen_i = np.where(chosen_i == _NONE, 0, chosen_i)
    columns, scores = [_right_and_asked(chosen_i, answer_i)], {"accuracy": _accuracy}
    if classes:
        _check_choices(items, classes)
        columns.append(_by_class(chosen_i, answer_i, len(classes)))
        scores["macro_f1"] = partial(_macro_f1, first=2, classes=len(classes))
    groups = tuple(dict.fromkeys(one.group for one in items))
    if over_groups:
        scores["group_accuracy"] = partial(_group_accuracy, first=sum(c.shape[1] for c in columns))
        columns.append(_by_group(columns[0], items, groups))
    documents, counts_dk = by_document([one.document for one in items], np.hstack(columns))
    parts = _parts(items, predictions, groups, unreadable, classes) if len(groups) > 1 else {}
    return Tally(documents, counts_dk, scores, len(items), missing, parts)


def headline(tally: Tally, name: str) -> Tally:
    """The same with another score first."""
    scores: dict[str, Score] = {name: tally.scores[name], **tally.scores}
    return Tally(
        tally.documents, tally.counts_dk, scores, tally.items, tally.unreadable, tally.parts
    )


def _chosen(items: Sequence[ChoiceItem], predictions: Sequence[Prediction]) -> np.ndarray:
    """Indices of choices, [items]; -1 where there is none."""
    need_one_each(items, predictions)
    for item, chosen in zip(items, predictions, strict=True):
        fits = isinstance(chosen, int | np.integer) and 0 <= chosen < len(item.choices)
        if chosen is not None and not fits:
            raise UserError(
                f"the prediction for {item.id} is {chosen!r}; it must be the index of one of "
                f"{len(item.choices)} choices, or None for an answer that cannot be read"
            )
    return np.array([_NONE if chosen is None else chosen for chosen in predictions], int)


def _check_choices(items: Sequence[ChoiceItem], classes: Sequence[str]) -> None:
    for item in items:
        if item.choices != tuple(classes):
            raise UserError(
                f"the choices of {item.id} are {', '.join(item.choices)}; macro-F1 needs the same "
                f"ones everywhere: {', '.join(classes)}"
            )


def _right_and_asked(chosen_i: np.ndarray, answer_i: np.ndarray) -> np.ndarray:
    return np.stack([chosen_i == answer_i, np.ones(len(chosen_i))], 1).astype(float)


def _by_class(chosen_i: np.ndarray, answer_i: np.ndarray, classes: int) -> np.ndarray:
    """Of each class rightly chosen, chosen, and to be chosen: [items, 3 * classes]."""
    chosen_ic = chosen_i[:, None] == np.arange(classes)
    answer_ic = answer_i[:, None] == np.arange(classes)
    return np.hstack([chosen_ic & answer_ic, chosen_ic, answer_ic]).astype(float)


def _by_group(
    counts_i2: np.ndarray, items: Sequence[ChoiceItem], groups: Sequence[str]
) -> np.ndarray:
    """Right and asked of each group: [items, 2 * groups]."""
    place = {name: column for column, name in enumerate(groups)}
    inside_ig = np.eye(len(groups))[np.array([place[one.group] for one in items], int)]
    return np.hstack([counts_i2[:, :1] * inside_ig, counts_i2[:, 1:] * inside_ig])


def _parts(
    items: Sequence[ChoiceItem],
    predictions: Sequence[Prediction],
    groups: Sequence[str],
    unreadable: str,
    classes: Sequence[str],
) -> dict[str, Tally]:
    parts = {}
    for group in sorted(groups):
        own = [place for place, item in enumerate(items) if item.group == group]
        parts[group] = score_choices(
            [items[i] for i in own], [predictions[i] for i in own], unreadable, classes
        )
    return parts


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where there is no whole."""
    return np.divide(part, whole, out=np.zeros_like(part, dtype=float), where=whole > 0)


def _accuracy(counts_k: np.ndarray) -> np.ndarray:
    return _share(counts_k[..., 0], counts_k[..., 1])


def _macro_f1(counts_k: np.ndarray, first: int, classes: int) -> np.ndarray:
    """Mean over classes of 2 right / (chosen + to be chosen)."""
    own = counts_k[..., first : first + 3 * classes]
    right_c, chosen_c, answer_c = np.split(own, 3, -1)
    return _share(2 * right_c, chosen_c + answer_c).mean(-1)


def _group_accuracy(counts_k: np.ndarray, first: int) -> np.ndarray:
    """Mean of the groups' accuracies; a group that was not drawn is left out."""
    right_g, asked_g = np.split(counts_k[..., first:], 2, -1)
    return _share(_share(right_g, asked_g).sum(-1), (asked_g > 0).sum(-1))
