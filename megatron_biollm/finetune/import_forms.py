"""The forms that instruction data usually has: question-answer, Alpaca, ShareGPT, and our own.

Alpaca: instruction, input, output (https://github.com/tatsu-lab/stanford_alpaca); ShareGPT:
conversations of from and value (https://github.com/lm-sys/FastChat, docs/training.md).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.finetune.imported import Dropped, Imported, asked
from megatron_biollm.finetune.records import field, import_records
from megatron_biollm.tokenizer.messages import ConversationError, check_conversation

SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "assistant": "assistant",
}


def read_messages(path: Path) -> Iterator[Imported | Dropped]:
    """Conversations in the form that is written, of which bad ones are left out."""
    return import_records(path, _messages)


def read_qa(path: Path, question: str, answer: str) -> Iterator[Imported | Dropped]:
    """Questions and answers in two columns or fields.

    Raises:
        UserError: a record lacks one of them.
    """

    def pair(record: dict[str, Any], where: str) -> Imported | Dropped:
        texts = [field(record, [name], where) for name in (question, answer)]
        return asked(*texts, where, str(record.get("id", "")))

    return import_records(path, pair)


def read_alpaca(path: Path) -> Iterator[Imported | Dropped]:
    """instruction, input (may be empty), output; system and history are taken where present.

    Raises:
        UserError: a record without instruction or output.
    """
    return import_records(path, _alpaca)


def read_sharegpt(path: Path) -> Iterator[Imported | Dropped]:
    """conversations of from (human, gpt, system) and value.

    Turns of the assistant before the first question, and a last question without an answer, are
    cut off. A conversation is left out where something is missing in the middle.

    Raises:
        UserError: a record has no conversations.
    """
    return import_records(path, _sharegpt)


def _messages(record: dict[str, Any], where: str) -> Imported | Dropped:
    try:
        check_conversation(record.get("messages"))
    except ConversationError as error:
        return Dropped(where, error.reason)
    return Imported(record["messages"], where, str(record.get("id", "")), record.get("meta") or {})


def _alpaca(record: dict[str, Any], where: str) -> Imported | Dropped:
    parts = [field(record, ["instruction"], where), str(record.get("input") or "").strip()]
    question = "\n\n".join(part for part in parts if part)
    row = asked(question, field(record, ["output"], where), where, str(record.get("id", "")))
    if isinstance(row, Imported):
        row.messages[:0] = [*_system(record), *_history(record)]
    return row


def _sharegpt(record: dict[str, Any], where: str) -> Imported | Dropped:
    turns = record.get("conversations", record.get("conversation"))
    if not isinstance(turns, list):
        raise UserError(
            f"{where} has no conversations, but {', '.join(record)}; give another --format"
        )
    messages, system = [], _system(record)
    for turn in turns:
        message = _turn(turn, where)
        if isinstance(message, Dropped):
            return message
        messages.append(message)
    while messages and messages[0]["role"] == "system":
        system = [messages.pop(0)]
    while messages and messages[0]["role"] == "assistant":
        messages.pop(0)
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    if not messages:
        return Dropped(where, "no answered question")
    if any(m["role"] != ("user", "assistant")[i % 2] for i, m in enumerate(messages)):
        return Dropped(where, "the speakers do not take turns")
    return Imported(system + messages, where, str(record.get("id", "")))


def _turn(turn: Any, where: str) -> dict[str, str] | Dropped:
    said = turn if isinstance(turn, dict) else {}
    speaker, text = said.get("from", said.get("role")), said.get("value", said.get("content"))
    role = SHAREGPT_ROLES.get(str(speaker).lower())
    if role is None:
        return Dropped(where, f"unknown role {str(speaker)[:20]!r}")
    if not isinstance(text, str) or not text.strip():
        return Dropped(where, "a message is empty")
    return {"role": role, "content": text.strip()}


def _system(record: dict[str, Any]) -> list[dict[str, str]]:
    text = record.get("system")
    known = isinstance(text, str) and text.strip()
    return [{"role": "system", "content": text.strip()}] if known else []


def _history(record: dict[str, Any]) -> list[dict[str, str]]:
    pairs = record.get("history") or []
    return [
        {"role": role, "content": str(text).strip()}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=False)
    ]
