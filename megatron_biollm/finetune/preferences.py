"""Judged answers in files: TRL's conversational preference format, paired and unpaired.

A line of a paired file is `{"prompt": [messages], "chosen": [messages], "rejected": [messages]}`,
of an unpaired one (KTO) `{"prompt": [messages], "completion": [messages], "label": true}`; `id`,
`margin` and `meta` are optional; files may be packed (.gz, .zst). A message is
`{"role": ..., "content": text}` (https://huggingface.co/docs/trl/dataset_formats).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from megatron_biollm.config import UserError
from megatron_biollm.finetune.conversations import Messages, numbered_lines
from megatron_biollm.tokenizer.messages import check_messages

Row = TypeVar("Row")


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
    rows = [parse(_object(where, line), where) for where, line in numbered_lines(Path(path))]
    if not rows:
        raise UserError(f"{path} holds no line; give JSON lines with prompt, chosen and rejected")
    return rows


def _object(where: str, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error}); write one object a line") from None
    if not isinstance(row, dict):
        raise UserError(f"{where} is {_shown(row)}; write an object with prompt and answers")
    return row


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
    if prompt[-1]["role"] != "user":
        raise UserError(
            f"{where}: prompt ends with {prompt[-1]['role']}; its last message must be what the "
            f"user says"
        )
    return prompt


def _answer(row: dict[str, Any], name: str, where: str) -> Messages:
    answer = _messages(row, name, where)
    first, last = answer[0]["role"], answer[-1]["role"]
    if {first, last} != {"assistant"}:
        raise UserError(
            f"{where}: {name} begins with {first} and ends with {last}; it must begin and end with "
            f"what the assistant says, and what comes before belongs into prompt"
        )
    return answer


def _messages(row: dict[str, Any], name: str, where: str) -> Messages:
    if name not in row:
        raise UserError(f"{where} has no {name}, but {', '.join(sorted(row)) or 'nothing'}")
    try:
        check_messages(row[name])
    except UserError as error:
        raise UserError(f"{where}: {name}: {error}") from None
    return [{"role": m["role"], "content": m["content"]} for m in row[name]]


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
