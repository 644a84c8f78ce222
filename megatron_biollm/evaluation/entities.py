"""Strict scores of mentions: right is one whose type and both ends are right.

What is found counts once, however often it is told. Of BIO tags, a mention begins with B-, as
`tag_spans` reads them: I- after O, or of another type, begins none (strict IOB2).
"""

from collections.abc import Sequence

import numpy as np

from megatron_biollm.evaluation.f1 import (
    COUNTS,
    f1,
    flat,
    macro,
    micro,
    precision,
    recall,
)
from megatron_biollm.evaluation.items import Prediction, Span, SpanItem
from megatron_biollm.evaluation.tally import Score, Tally, by_document, need_one_each

_OVERALL = (("f1", f1), ("precision", precision), ("recall", recall))


def tag_spans(tags: Sequence[str]) -> list[Span]:
    """The mentions of one sentence's IOB2 tags; `start` and `end` count tokens."""
    spans: list[Span] = []
    for place, tag in enumerate(tags):
        prefix, _, kind = tag.partition("-")
        if prefix == "B":
            spans.append(Span(place, place + 1, kind))
        elif prefix == "I" and spans and spans[-1].end == place and spans[-1].type == kind:
            spans[-1] = Span(spans[-1].start, place + 1, kind)
    return spans


def count_spans(
    sought: Sequence[Sequence[Span]], given: Sequence[Sequence[Span]], types: Sequence[str]
) -> np.ndarray:
    """How many mentions are right, given and sought: [items, types + 1, 3].

    The last column of types takes those that are none of `types`.
    """
    sought_rows, given_rows = _rows(sought, types), _rows(given, types)
    _, place = np.unique(np.concatenate([sought_rows, given_rows]), axis=0, return_inverse=True)
    place = place.reshape(-1)
    is_right = np.isin(place[len(sought_rows) :], place[: len(sought_rows)])
    counts = np.zeros((len(sought), len(types) + 1, COUNTS))
    for column, rows in enumerate((given_rows[is_right], given_rows, sought_rows)):
        np.add.at(counts[..., column], (rows[:, 0], rows[:, 3]), 1)
    return counts


def _rows(spans: Sequence[Sequence[Span]], types: Sequence[str]) -> np.ndarray:
    """Each mention once as (item, start, end, type), [mentions, 4]."""
    code = {kind: place for place, kind in enumerate(types)}
    rows = [
        (item, span.start, span.end, code.get(span.type, len(types)))
        for item, some in enumerate(spans)
        for span in set(some)
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 4)


def span_tally(items: Sequence[SpanItem], predictions: Sequence[Prediction]) -> Tally:
    """Strict F1, precision and recall of all mentions, and by type where there are several.

    Raises:
        UserError: not one prediction for each item.
    """
    need_one_each(items, predictions)
    types = sorted({kind for item in items for kind in (*item.types, *_types(item.spans))})
    counts = count_spans([one.spans for one in items], [one or () for one in predictions], types)
    # Of all columns, however many: what stored counts mean is asked without any item.
    scores = {name: micro((), measure) for name, measure in _OVERALL}
    if len(types) > 1:
        scores["macro_f1"] = macro(range(len(types)))
    parts = {
        kind: _tally(items, predictions, counts[:, place], dict(_OVERALL))
        for place, kind in enumerate(types if len(types) > 1 else ())
    }
    return _tally(items, predictions, flat(counts), scores, parts)


def _types(spans: Sequence[Span]) -> set[str]:
    return {span.type for span in spans}


def _tally(
    items: Sequence[SpanItem],
    predictions: Sequence[Prediction],
    counts_ik: np.ndarray,
    scores: dict[str, Score],
    parts: dict[str, Tally] | None = None,
) -> Tally:
    documents, counts_dk = by_document([item.document for item in items], counts_ik)
    unreadable = sum(one is None for one in predictions)
    return Tally(documents, counts_dk, scores, len(items), unreadable, parts or {})


def altgene_tally(items: Sequence[SpanItem], predictions: Sequence[Prediction]) -> Tally:
    """The score of BioCreative II gene mention, where alternatives are as good.

    As its `alt_eval.perl`: a gene is found where it, or an alternative that overlaps it, is told;
    what is told is wrong where it is neither a gene nor an alternative of any. One alternative
    of two genes finds both.

    Raises:
        UserError: not one prediction for each item.
    """
    need_one_each(items, predictions)
    counts = [
        _altgene(item, set(told or ())) for item, told in zip(items, predictions, strict=True)
    ]
    counts_ik = np.array(counts, float).reshape(-1, COUNTS)
    return _tally(items, predictions, counts_ik, dict(_OVERALL))


def _altgene(item: SpanItem, told: set[Span]) -> tuple[int, int, int]:
    others = {span: set(some) for span, some in item.alternatives}
    found = sum(not told.isdisjoint(others.get(span, set()) | {span}) for span in item.spans)
    wrong = len(told.difference(item.spans, *others.values()))
    return found, found + wrong, len(item.spans)
