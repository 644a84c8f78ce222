"""Preference data sets: TRL's form and UltraFeedback binarized, HH-RLHF, raw UltraFeedback.

Forms: https://huggingface.co/docs/trl/dataset_formats,
https://huggingface.co/datasets/HuggingFaceH4/ultrafeedback_binarized,
https://huggingface.co/datasets/Anthropic/hh-rlhf,
https://huggingface.co/datasets/openbmb/UltraFeedback.

What the data set prefers becomes the opinion of an account with its name, which counts neither as
an expert's rating nor in the agreement, and which an export can include.
"""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, Optional

from megatron_biollm.config import UserError
from megatron_biollm.feedback.importers.rows import id_of, messages, read_rows, text_of
from megatron_biollm.feedback.items import Answer, Item, Opinion, fraction, key_of
from megatron_biollm.feedback.judging import storable
from megatron_biollm.feedback.words import DATASET

_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


def _said(name: str, preference: str) -> tuple[Opinion]:
    return (Opinion(by=name, preference=preference, role=DATASET),)


def read_preferences(path: str | Path, name: str) -> Iterator[Item]:
    """`prompt` (text, messages, or none before full transcripts), `chosen` and `rejected`."""
    for place, row in read_rows(path):
        prompt, texts = _trl_row(row, place)
        models = (row.get("chosen_model", ""), row.get("rejected_model", ""))
        scores = {k: row[k] for k in ("score_chosen", "score_rejected", "margin") if k in row}
        yield Item(
            prompt=prompt,
            answers=tuple(Answer(t, str(m or "")) for t, m in zip(texts, models, strict=True)),
            source=name,
            external_id=id_of(row) or "",
            meta={**(row.get("meta") or {}), **scores},
            opinions=_said(name, "first"),
        )


def _trl_row(row: dict[str, Any], place: str) -> tuple[list[dict[str, str]], list[str]]:
    if "chosen" not in row or "rejected" not in row:
        raise UserError(f"{place} has no 'chosen' and 'rejected'; this is another form")
    sides = [row["chosen"], row["rejected"]]
    if row.get("prompt"):
        prompt = messages(row["prompt"], place)
    elif isinstance(sides[0], list):
        if sides[0][:-1] != sides[1][:-1]:
            raise UserError(f"{place}: chosen and rejected differ before their last message")
        prompt = messages(sides[0][:-1], place)
    else:
        raise UserError(f"{place} has no 'prompt'; give it as a text or as messages")
    return prompt, [text_of(side, place) for side in sides]


def read_hh(path: str | Path, name: str = "hh-rlhf") -> Iterator[Item]:
    """Two transcripts, `chosen` and `rejected`, that differ after their last `Assistant:`."""
    for place, row in read_rows(path):
        sides = [_split_transcript(row.get(k), place) for k in ("chosen", "rejected")]
        if sides[0][0] != sides[1][0]:
            raise UserError(
                f"{place}: chosen and rejected differ before their last {_ASSISTANT.strip()!r}; "
                "both must answer the same conversation"
            )
        prompt = messages(_turns(sides[0][0], place), place)
        answers = tuple(Answer(storable(text)) for _, text in sides)
        yield Item(prompt, answers, source=name, opinions=_said(name, "first"))


def _split_transcript(text: Any, place: str) -> tuple[str, str]:
    if not isinstance(text, str) or _ASSISTANT not in text:
        raise UserError(f"{place} has no transcript with {_ASSISTANT.strip()!r}; another form?")
    before, _, answer = text.rpartition(_ASSISTANT)
    return before, answer.strip()


def _turns(text: str, place: str) -> list[dict[str, str]]:
    if not text.startswith(_HUMAN):
        raise UserError(f"{place} does not begin with {_HUMAN.strip()!r}")
    turns = []
    for part in text.split(_HUMAN)[1:]:
        question, *answers = part.split(_ASSISTANT)
        turns.append({"role": "user", "content": question.strip()})
        turns += [{"role": "assistant", "content": answer.strip()} for answer in answers]
    return turns


def read_ultrafeedback(
    path: str | Path, name: str = "ultrafeedback", pairs_per_prompt: int = 1, seed: int = 0
) -> Iterator[Item]:
    """`instruction` and `completions` of several models with ratings of four aspects.

    An answer's score is the mean of its aspects' ratings, since some `overall_score` of the
    published files are wrong by a factor of ten
    (https://huggingface.co/datasets/argilla/ultrafeedback-binarized-preferences).
    """
    for place, row in read_rows(path):
        completions = row.get("completions")
        if not isinstance(completions, list) or "instruction" not in row:
            raise UserError(f"{place} has no 'instruction' and 'completions'; this is another form")
        prompt = messages(row["instruction"], place)
        scored = [
            (Answer(text_of(c.get("response"), place), str(c.get("model", ""))), _score(c))
            for c in completions
        ]
        items = [_scored_pair(prompt, pair, row, name) for pair in combinations(scored, 2)]
        yield from sorted(items, key=lambda i: fraction(seed, "pair", key_of(i)))[:pairs_per_prompt]


def _score(completion: dict[str, Any]) -> Optional[float]:
    annotations = (completion.get("annotations") or {}).values()
    ratings = [str(a.get("Rating", "")) for a in annotations if isinstance(a, dict)]
    numbers = [float(rating) for rating in ratings if rating.replace(".", "", 1).isdecimal()]
    if numbers:
        return sum(numbers) / len(numbers)
    found = completion.get("fine-grained_score", completion.get("overall_score"))
    return float(found) if isinstance(found, int | float) else None


def _scored_pair(prompt: list[dict[str, str]], pair: tuple, row: dict[str, Any], name: str) -> Item:
    (first, a), (second, b) = pair
    opinions = ()
    if a is not None and b is not None:
        opinions = _said(name, "tie" if a == b else "first" if a > b else "second")
    return Item(
        prompt=prompt,
        answers=(first, second),
        source=name,
        external_id=id_of(row) or "",
        meta={"scores": [a, b], "origin": row.get("source", "")},
        opinions=opinions,
    )
