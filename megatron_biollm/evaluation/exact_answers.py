"""Answers that are names, one a line: BioASQ's scores of factoid and list questions.

Balikas et al. 2013, Evaluation framework specifications of BioASQ (http://participants-area.bioasq.
org/Tasks/b/eval_meas_2022): a name counts if it equals one of an entity's synonyms, in any case.
Factoid: of at most five names the first (strict) or any (lenient) is right; mean reciprocal rank.
List: precision, recall and F1 of each question's names, averaged over questions.

The first reference of an item is the answer as a model should write it, each further one an entity
with its synonyms, one a line.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.items import Prediction, TextItem
from megatron_biollm.evaluation.tally import Tally, by_document, need_one_each

MOST_NAMES = 5
_BULLET = re.compile(r"^\s*(?:[-*•–]|\(?\d{1,2}[.)](?!\d))\s*")


def score_factoids(items: Sequence[TextItem], predictions: Sequence[Prediction]) -> Tally:
    """`mrr`, `strict` and `lenient`, each a mean over questions.

    Raises:
        UserError: not one prediction an item, or one that is no text.
    """
    return _means(items, predictions, _ranked, ("mrr", "strict", "lenient"))


def score_lists(items: Sequence[TextItem], predictions: Sequence[Prediction]) -> Tally:
    """`f1`, `precision` and `recall`, each a mean over questions.

    Raises:
        UserError: as `score_factoids`.
    """
    return _means(items, predictions, _listed, ("f1", "precision", "recall"))


def names_in(text: str) -> list[str]:
    """The names in a text, one a line, each once, without bullets and numbers before them."""
    lines = (_plain(_BULLET.sub("", line)) for line in text.splitlines())
    return list(dict.fromkeys(line for line in lines if line))


def _plain(name: str) -> str:
    return " ".join(name.casefold().split()).strip(" .,;\"'")


def _entities(item: TextItem) -> list[set[str]]:
    return [set(names_in(synonyms)) for synonyms in item.references[1:]]


def _ranked(item: TextItem, text: str) -> list[float]:
    known = set().union(*_entities(item))
    places = [i for i, name in enumerate(names_in(text)[:MOST_NAMES]) if name in known]
    first = places[0] + 1 if places else 0
    return [1 / first if first else 0.0, float(first == 1), float(first > 0)]


def _listed(item: TextItem, text: str) -> list[float]:
    """Every entity counts once, and every further name of it as a wrong one."""
    entities, names = _entities(item), names_in(text)
    found = sum(any(name in synonyms for name in names) for synonyms in entities)
    precision, recall = found / max(len(names), 1, found), found / max(len(entities), 1)
    return [2 * precision * recall / (precision + recall) if found else 0.0, precision, recall]


def _means(
    items: Sequence[TextItem],
    predictions: Sequence[Prediction],
    judge: Callable[[TextItem, str], list[float]],
    names: Sequence[str],
) -> Tally:
    need_one_each(items, predictions)
    rows = []
    for item, text in zip(items, predictions, strict=True):
        if text is not None and not isinstance(text, str):
            raise UserError(f"the prediction for {item.id} is {text!r:.40}; it must be a text")
        rows.append([*judge(item, text or ""), 1.0])
    counts_ik = np.array(rows).reshape(len(items), len(names) + 1)
    documents, counts_dk = by_document([item.document for item in items], counts_ik)
    scores = {name: partial(_mean, column=column) for column, name in enumerate(names)}
    return Tally(documents, counts_dk, scores, len(items), list(predictions).count(None))


def _mean(counts_k: np.ndarray, column: int) -> np.ndarray:
    """A column by the last, which counts questions; 0 of none."""
    total, asked = counts_k[..., column], counts_k[..., -1]
    return np.divide(total, asked, out=np.zeros_like(total, dtype=float), where=asked > 0)
