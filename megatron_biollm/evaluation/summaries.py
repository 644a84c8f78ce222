"""ROUGE of written texts: n-grams and longest common subsequences shared with the reference.

Lin 2004 (https://aclanthology.org/W04-1013), as counted by the package `rouge-score`, which papers
use. F1 of each text against the reference that fits it best, averaged over texts.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmark import Convention
from megatron_biollm.evaluation.items import Prediction, TextItem
from megatron_biollm.evaluation.tally import Tally, by_document, need_one_each

# rougeL sees one line, rougeLsum each line for itself.
KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
STEMMER = Convention(
    "stemmer",
    ("without", "with"),
    "words as they are (the Hugging Face `evaluate` package, with which the MEDIQA-Chat challenges "
    "and ACI-Bench scored), or their Porter stems",
)


def score_texts(
    items: Sequence[TextItem], predictions: Sequence[Prediction], stemmer: str = "without"
) -> Tally:
    """ROUGE-1, -2, -L and -Lsum of texts, of all and of each part.

    Args:
        predictions: a text for each item, or None where there is none: it scores 0.

    Raises:
        UserError: not one prediction an item, one that is no text, or no package `rouge-score`.
    """
    need_one_each(items, predictions)
    rouge = _scorer(stemmer == "with") if items else None
    rows = [_row(item, text, rouge) for item, text in zip(items, predictions, strict=True)]
    return _tally(items, np.array(rows).reshape(len(items), len(KINDS) + 2), "")


def _scorer(stemmer: bool) -> Callable[[Sequence[str], str], list[float]]:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise UserError(
            "ROUGE needs the package rouge-score: pip install 'megatron_biollm[eval]'"
        ) from error
    scorer = RougeScorer(KINDS, use_stemmer=stemmer)

    def score(references: Sequence[str], text: str) -> list[float]:
        found = scorer.score_multi(references, text)
        return [found[kind].fmeasure for kind in KINDS]

    return score


def _row(
    item: TextItem, text: Prediction, rouge: Callable[[Sequence[str], str], list[float]]
) -> list[float]:
    """F1 of each kind, one text, and whether it is missing."""
    if text is None:
        return [0.0] * len(KINDS) + [1.0, 1.0]
    if not isinstance(text, str):
        raise UserError(f"the prediction for {item.id} is {text!r:.40}; it must be a text or None")
    return [*rouge(item.references, text), 1.0, 0.0]


def _tally(items: Sequence[TextItem], rows_ik: np.ndarray, part: str) -> Tally:
    """The tally of all items, or of a part."""
    own = [place for place, item in enumerate(items) if part in ("", item.part)]
    documents, counts_dk = by_document([items[place].document for place in own], rows_ik[own])
    names = [] if part else sorted({item.part for item in items} - {""})
    return Tally(
        documents,
        counts_dk,
        {kind: partial(_mean, column=column) for column, kind in enumerate(KINDS)},
        len(own),
        int(rows_ik[own, -1].sum()),
        {name: _tally(items, rows_ik, name) for name in names} if len(names) > 1 else {},
    )


def _mean(counts_k: np.ndarray, column: int) -> np.ndarray:
    """Mean F1 of a kind; 0 of no text."""
    total, texts = counts_k[..., column], counts_k[..., len(KINDS)]
    return np.divide(total, texts, out=np.zeros_like(total, dtype=float), where=texts > 0)
