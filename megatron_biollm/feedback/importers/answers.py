"""Prompts with answers of two or more systems, in one file or in two that are joined."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, Optional

from megatron_biollm.config import UserError
from megatron_biollm.feedback.importers.rows import id_of, prompt_of, read_rows, text_in
from megatron_biollm.feedback.items import Answer, Item, fraction, key_of


def read_answers(path: str | Path, pairs_per_prompt: int = 1, seed: int = 0) -> Iterator[Item]:
    """Rows of the form `{"prompt" | "messages": ..., "answers": [{"model": ..., "text": ...}]}`.

    Optional in a row: `id`, `specialty`, `meta`, and `gold`, which is first or second (of two
    answers), tie or both_unsafe.

    pairs_per_prompt: of more than two answers, so many pairs are drawn, by `seed` and content.
    """
    for place, row in read_rows(path):
        answers = row.get("answers")
        if not isinstance(answers, list) or len(answers) < 2:
            raise UserError(f"{place} has no two answers; give a list of two or more as 'answers'")
        if row.get("gold") is not None and len(answers) != 2:
            raise UserError(f"{place} has a gold verdict on {len(answers)} answers; give two")
        found = [_answer(answer, place) for answer in answers]
        items = [
            _item(row, prompt_of(row, place), pair, Path(path).name)
            for pair in combinations(found, 2)
        ]
        yield from sorted(items, key=lambda i: fraction(seed, "pair", key_of(i)))[:pairs_per_prompt]


def _answer(answer: Any, place: str) -> Answer:
    if isinstance(answer, str):
        answer = {"text": answer}
    if not isinstance(answer, dict):
        raise UserError(f"{place} has an answer that is neither text nor an object with 'text'")
    return Answer(text_in(answer, place), str(answer.get("model", "")))


def _item(
    row: dict[str, Any], prompt: list[dict[str, str]], pair: tuple[Answer, Answer], source: str
) -> Item:
    return Item(
        prompt=prompt,
        answers=pair,
        gold=row.get("gold"),
        specialty=str(row.get("specialty", "")),
        source=source,
        external_id=id_of(row) or "",
        meta=row.get("meta") or {},
    )


def read_two_files(
    first: str | Path,
    second: str | Path,
    models: tuple[Optional[str], Optional[str]] = (None, None),
) -> Iterator[Item]:
    """Two files of generations over the same prompts, joined by `id`, or by the prompt.

    models: names of what wrote them, where the rows have no `model`; else the files' names.

    Raises:
        UserError: a row without partner, two rows of one id, or two prompts under one id.
    """
    sides = [
        _by_key(path, model or Path(path).stem)
        for path, model in zip((first, second), models, strict=True)
    ]
    alone = [key for key in sides[0] if key not in sides[1]]
    alone += [key for key in sides[1] if key not in sides[0]]
    if alone:
        raise UserError(
            f"{len(alone)} prompts are in one of {first} and {second} alone, the first with id or "
            f"text {alone[0]!r:.80}; generate both from the same prompts"
        )
    for key, (place, prompt, answer, row) in sides[0].items():
        other_place, other_prompt, other, _ = sides[1][key]
        if prompt != other_prompt:
            raise UserError(f"{place} and {other_place} share the id {key!r}, not the prompt")
        yield _item(row, prompt, (answer, other), f"{Path(first).name} and {Path(second).name}")


def _by_key(path: str | Path, model: str) -> dict[str, tuple]:
    found: dict[str, tuple] = {}
    for place, row in read_rows(path):
        prompt = prompt_of(row, place)
        key = id_of(row) or repr(prompt)
        if key in found:
            raise UserError(
                f"{found[key][0]} and {place} have the same id or prompt {key!r:.80}; give each "
                "row its own id"
            )
        found[key] = (place, prompt, Answer(text_in(row, place), str(row.get("model", model))), row)
    return found
