"""Pairs of answers to judge: checked, told apart by their content, shared out by a stable hash."""

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Optional

from megatron_biollm.config import UserError
from megatron_biollm.feedback.words import VERDICTS

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Answer:
    """model: the checkpoint or system that wrote it, which no page shows."""

    text: str
    model: str = ""


@dataclass(frozen=True)
class Opinion:
    """A judgement that comes with an import: of a person, or of a data set.

    preference: first, second, tie, both_unsafe or cannot_judge.
    """

    by: str
    preference: str
    role: str
    strength: Optional[int] = None
    rationale: str = ""
    correction: str = ""
    correction_base: str = ""
    unsafe: tuple[str, str] = ("", "")
    error: tuple[bool, bool] = (False, False)
    seconds: Optional[float] = None
    left_position: int = 0


@dataclass(frozen=True)
class Item:
    """Two answers to one conversation that ends with the user.

    prompt: messages with role and content. gold: the known verdict, for checks of the annotators.
    """

    prompt: list[dict[str, str]]
    answers: tuple[Answer, Answer]
    gold: Optional[str] = None
    specialty: str = ""
    source: str = ""
    external_id: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    opinions: tuple[Opinion, ...] = ()


def key_of(item: Item) -> str:
    texts = sorted(answer.text for answer in item.answers)
    content = json.dumps([item.prompt, texts], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def problem(item: Item) -> Optional[str]:
    """Why nobody can compare these answers, or None."""
    first, second = (answer.text.strip() for answer in item.answers)
    if not first or not second:
        return "an answer is empty"
    if first == second:
        return "both answers are equal"
    return None


def check_prompt(prompt: Any) -> list[dict[str, str]]:
    """The messages with role and content alone.

    Raises:
        UserError: no messages, an unknown role, content that is no text, or no user at the end.
    """
    if not isinstance(prompt, list) or not prompt:
        raise UserError("the prompt has no messages; give a text or a list of messages")
    messages = []
    for message in prompt:
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ROLES:
            raise UserError(f"a message has the role {role!r}; use one of {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str):
            raise UserError(f"a message of role {role} has no text under 'content'")
        messages.append({"role": role, "content": message["content"]})
    if messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        raise UserError("the prompt does not end with a user's text, so there is nothing to answer")
    return messages


def fraction(seed: int, purpose: str, key: str) -> float:
    """A number in [0, 1) that depends on its arguments alone, the same on every machine."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{key}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def add_item(
    connection: sqlite3.Connection, item: Item, settings: dict[str, Any], now: float
) -> tuple[int, bool]:
    """Adds an item unless the same pair is there; returns its id and whether it is new.

    A gold verdict given now is set on the pair that is there already.
    """
    key = key_of(item)
    if item.gold is not None and item.gold not in VERDICTS:
        raise UserError(f"gold is {item.gold!r}; give one of {', '.join(VERDICTS)}")
    row = connection.execute("SELECT id FROM item WHERE key = ?", [key]).fetchone()
    if row is not None:
        _set_gold(connection, row["id"], item)
        return row["id"], False
    doubled = fraction(settings["seed"], "double", key) < settings["double_share"]
    shuffle = int(fraction(settings["seed"], "shuffle", key) * 2**48)
    cursor = connection.execute(
        "INSERT INTO item (key, prompt, specialty, ratings_wanted, gold, shuffle, source, "
        "external_id, meta, added_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            key,
            json.dumps(item.prompt, ensure_ascii=False),
            item.specialty,
            2 if doubled else 1,
            item.gold,
            shuffle,
            item.source,
            item.external_id,
            json.dumps(item.meta, ensure_ascii=False),
            now,
        ],
    )
    for position, answer in enumerate(item.answers):
        row = [cursor.lastrowid, position, answer.model, answer.text]
        connection.execute("INSERT INTO answer VALUES (?, ?, ?, ?)", row)
    return cursor.lastrowid, True


def _set_gold(connection: sqlite3.Connection, item_id: int, item: Item) -> None:
    if item.gold is None:
        return
    gold = item.gold if in_stored_order(connection, item_id, item) else swapped(item.gold)
    connection.execute("UPDATE item SET gold = ? WHERE id = ?", [gold, item_id])


def in_stored_order(connection: sqlite3.Connection, item_id: int, item: Item) -> bool:
    """Whether the item's first answer is also the first in the database."""
    (text,) = connection.execute(
        "SELECT text FROM answer WHERE item_id = ? AND position = 0", [item_id]
    ).fetchone()
    return text == item.answers[0].text


def swapped(verdict: str) -> str:
    return {"first": "second", "second": "first"}.get(verdict, verdict)


def count_by(rows: Iterable[sqlite3.Row], column: str) -> dict[str, int]:
    return dict(Counter(row[column] for row in rows))
