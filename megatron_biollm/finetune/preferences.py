"""Judged answers in files: TRL's conversational preference format, paired and unpaired.

A line of a paired file is `{"prompt": [messages], "chosen": [messages], "rejected": [messages]}`,
of an unpaired one (KTO) `{"prompt": [messages], "completion": [messages], "label": true}`; `id`,
`margin` and `meta` are optional. A message is `{"role": ..., "content": text}`
(https://huggingface.co/docs/trl/dataset_formats).
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from megatron_biollm.config import UserError

Messages = list[dict[str, str]]
Row = TypeVar("Row")
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, of which people prefer one.

    Attributes:
        prompt: ends with what the user says.
        chosen, rejected: what the assistant says then.
        margin: by how much chosen is better, in the reward's units.
        where: file and line, for messages.
        id: as the file names it, else empty.
    """

    prompt: Messages
    chosen: Messages
    rejected: Messages
    margin: float = 0.0
    where: str = ""
    id: str = ""

    @property
    def answers(self) -> tuple[Messages, Messages]:
        """Chosen, rejected."""
        return self.chosen, self.rejected


@dataclass(frozen=True)
class Labelled:
    """One answer that people call good (`label`) or bad; the rest as in `Pair`."""

    prompt: Messages
    completion: Messages
    label: bool
    where: str = ""
    id: str = ""


def read_pairs(path: str | Path) -> list[Pair]:
    """Every pair of a file, in order.

    Raises:
        UserError: with file and line: no JSON, a missing or wrong field, an unknown role, no
            prompt, an empty answer, or two equal answers; or the file is absent or has no line.
    """
    return _read(path, _pair)


def read_labelled(path: str | Path) -> list[Labelled]:
    """Every labelled answer of a file, in order; of a file of pairs, both answers of each.

    Raises:
        UserError: as `read_pairs`, or a label that is neither true nor false.
    """
    return [answer for some in _read(path, _labelled) for answer in some]


def _read(path: str | Path, parse: Callable[[dict[str, Any], str], Row]) -> list[Row]:
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is not a file; give JSON lines with prompt, chosen and rejected")
    rows = [parse(row, where) for where, row in _lines(path)]
    if not rows:
        raise UserError(f"{path} holds no line; give JSON lines with prompt, chosen and rejected")
    return rows


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{where} is not JSON ({error}); write one object a line") from None
            if not isinstance(row, dict):
                raise UserError(
                    f"{where} is {_shown(row)}; write an object with prompt and answers"
                )
            yield where, row


def _pair(row: dict[str, Any], where: str) -> Pair:
    prompt = _prompt(row, where)
    chosen, rejected = (_answer(row, name, where) for name in ("chosen", "rejected"))
    if chosen == rejected:
        raise UserError(
            f"{where}: chosen and rejected are equal ({_shown(chosen[-1]['content'])}), so nothing "
            f"is preferred; leave the line out"
        )
    return Pair(prompt, chosen, rejected, _margin(row, where), where, str(row.get("id", "")))


def _labelled(row: dict[str, Any], where: str) -> list[Labelled]:
    if "chosen" in row:
        pair = _pair(row, where)
        answers = zip(pair.answers, (True, False), strict=True)
        return [Labelled(pair.prompt, answer, label, where, pair.id) for answer, label in answers]
    label = row.get("label")
    if not isinstance(label, bool):
        raise UserError(f"{where}: label is {_shown(label)}; write true for good, false for bad")
    completion = _answer(row, "completion", where)
    return [Labelled(_prompt(row, where), completion, label, where, str(row.get("id", "")))]


def _prompt(row: dict[str, Any], where: str) -> Messages:
    prompt = _messages(row, "prompt", where)
    if not prompt or prompt[-1]["role"] != "user":
        last = f"ends with {prompt[-1]['role']}" if prompt else "is empty"
        raise UserError(f"{where}: prompt {last}; its last message must be what the user says")
    return prompt


def _answer(row: dict[str, Any], name: str, where: str) -> Messages:
    answer = _messages(row, name, where)
    ends = [message["role"] for message in (*answer[:1], *answer[-1:])]
    if not answer or not all(m["content"].strip() for m in answer if m["role"] == "assistant"):
        raise UserError(f"{where}: {name} is empty; an answer must have text: leave the line out")
    if set(ends) != {"assistant"}:
        raise UserError(
            f"{where}: {name} begins with {ends[0]} and ends with {ends[1]}; it must begin and end "
            f"with what the assistant says, and what comes before belongs into prompt"
        )
    return answer


def _messages(row: dict[str, Any], name: str, where: str) -> Messages:
    if name not in row:
        raise UserError(f"{where} has no {name}, but {', '.join(sorted(row)) or 'nothing'}")
    messages = row[name]
    if not isinstance(messages, list):
        raise UserError(
            f"{where}: {name} is {_shown(messages)}; write a list of messages, "
            f'[{{"role": "user", "content": ...}}]'
        )
    return [_message(message, f"{where}: {name}[{at}]") for at, message in enumerate(messages)]


def _message(message: Any, where: str) -> dict[str, str]:
    if not isinstance(message, dict) or not isinstance(message.get("content"), str):
        raise UserError(f"{where} is {_shown(message)}; write its role, and its content as text")
    if message.get("role") not in ROLES:
        raise UserError(
            f"{where} has the role {_shown(message.get('role'))}; known are {', '.join(ROLES)}"
        )
    return {"role": message["role"], "content": message["content"]}


def _margin(row: dict[str, Any], where: str) -> float:
    margin = row.get("margin", 0.0)
    if margin is None:
        return 0.0
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not margin >= 0:
        raise UserError(f"{where}: margin is {_shown(margin)}; write a number of 0 or more")
    return float(margin)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
