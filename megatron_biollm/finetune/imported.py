"""What an importer gives: a conversation, or why there is none."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Imported:
    """A conversation from another form.

    Attributes:
        messages: role and content of each.
        where: file and place in it.
        id, meta: what the source says about it.
        group: what belongs together (one document, one patient) and must not lie half in the
            training and half in the held-out file; empty takes the first question.
    """

    messages: list[dict[str, str]]
    where: str
    id: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    group: str = ""


@dataclass(frozen=True)
class Dropped:
    """A record that is left out, and the reason under which it is counted."""

    where: str
    reason: str


def asked(
    question: str,
    answer: str,
    where: str,
    name: str = "",
    meta: dict[str, Any] | None = None,
    group: str = "",
) -> Imported | Dropped:
    """One question and its answer."""
    question, answer = question.strip(), answer.strip()
    if not question or not answer:
        return Dropped(where, "no answer" if question else "no question")
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
    return Imported(messages, where, name, meta or {}, group)
