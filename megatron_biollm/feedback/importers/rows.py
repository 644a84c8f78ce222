"""Rows of JSON files, messages and texts, with the place named where something is wrong."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from megatron_biollm.config import UserError
from megatron_biollm.feedback.items import check_prompt
from megatron_biollm.feedback.judging import storable

TEXT_KEYS = ("text", "completion", "response", "answer", "output", "generation", "generated_text")
PROMPT_KEYS = ("messages", "prompt", "question", "instruction")
ID_KEYS = ("id", "prompt_id", "task_id", "_id")


def read_rows(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a JSONL file or a JSON list, each with its place for messages.

    Raises:
        UserError: no such file, not UTF-8, a line that is no JSON, or a value that is no object.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; give a JSONL or JSON file")
    try:
        with path.open(encoding="utf-8-sig") as file:
            start = file.read(4096).lstrip()[:1]
            file.seek(0)
            if start == "[":
                rows = ((f"{path} item {n}", row) for n, row in enumerate(json.load(file), 1))
            else:
                rows = _lines(path, file)
            for place, row in rows:
                if not isinstance(row, dict):
                    raise UserError(f"{place} is no JSON object; write one object a line")
                yield place, row
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}); convert it first") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not readable JSON: {error}") from error


def _lines(path: Path, file: Any) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            yield f"{path}:{number}", json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path}:{number} is no JSON ({error.msg}); mend or remove the line"
            ) from error


def prompt_of(row: dict[str, Any], place: str) -> list[dict[str, str]]:
    """Messages from `messages`, or `prompt`, `question` or `instruction` as messages or text."""
    value = next((row[key] for key in PROMPT_KEYS if key in row), None)
    if value is None:
        raise UserError(f"{place} has no prompt; give it under 'prompt' (text or messages)")
    return messages(value, place)


def messages(value: Any, place: str) -> list[dict[str, str]]:
    """A text is one message of the user."""
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    try:
        found = check_prompt(value)
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
    return [{**message, "content": storable(message["content"])} for message in found]


def text_of(value: Any, place: str) -> str:
    """An answer: a text, or messages of which the last is the assistant's."""
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content")
    if not isinstance(value, str):
        raise UserError(f"{place} has an answer that is no text: {value!r:.80}")
    return storable(value)


def text_in(row: dict[str, Any], place: str) -> str:
    for key in TEXT_KEYS:
        if key in row:
            return text_of(row[key], place)
    raise UserError(f"{place} has no answer; give it under one of {', '.join(TEXT_KEYS)}")


def id_of(row: dict[str, Any]) -> Optional[str]:
    return next((str(row[key]) for key in ID_KEYS if row.get(key) is not None), None)
