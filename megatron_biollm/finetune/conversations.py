"""Conversations in files: JSON lines, `{"messages": [{"role": ..., "content": text}, ...]}`.

`id` and `meta` are optional and kept; files may be packed (.gz, .zst).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.data.lines import Shard, read_lines
from megatron_biollm.tokenizer.messages import check_conversation

Messages = list[dict[str, str]]
_PACKED = (".gz", ".zst")


@dataclass(frozen=True)
class Conversation:
    """What a user and the assistant said to each other.

    Attributes:
        messages: role and content of each; at least one is the assistant's.
        where: file and line, for messages about it.
        id, meta: as the file has them, else empty.
    """

    messages: Messages
    where: str = ""
    id: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


def read_conversations(paths: str | Path | Sequence[str | Path]) -> Iterator[Conversation]:
    """The conversations of some files, in order, one line in memory at a time.

    Raises:
        UserError: with file and line: no JSON, no messages, an unknown role, empty content, no
            turn of the assistant; or a file that is absent, cannot be read or has no line.
    """
    paths = [paths] if isinstance(paths, str | Path) else paths
    for path in paths:
        empty = True
        for where, line in numbered_lines(Path(path)):
            empty = False
            yield parse_conversation(line, where)
        if empty:
            raise UserError(f"{path} holds no line; give JSON lines with messages")


def numbered_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """The lines of a file that are not empty, each with `file:line`.

    Raises:
        UserError: the file is absent or cannot be read.
    """
    if not path.is_file():
        raise UserError(f"{path} is not a file; give JSON lines with messages")
    kind = "packed" if path.suffix in _PACKED else "lines"
    shard = Shard(str(path), kind, end=path.stat().st_size)
    number = 0
    for lines in read_lines(shard):
        for line in lines:
            number += 1
            if line.strip():
                yield f"{path}:{number}", bytes(line)


def parse_conversation(line: bytes, where: str) -> Conversation:
    """The conversation of a line.

    Raises:
        UserError: beginning with `where`; see `read_conversations`.
    """
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error}); write one object a line") from None
    if not isinstance(row, dict) or "messages" not in row:
        found = ", ".join(sorted(row)) if isinstance(row, dict) else type(row).__name__
        raise UserError(
            f'{where} has no "messages", but {found or "nothing"}; write {{"messages": [...]}} a '
            f"line (tools/prepare_conversations.py makes such a file of other forms)"
        )
    try:
        check_conversation(row["messages"])
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    messages = [{"role": m["role"], "content": m["content"]} for m in row["messages"]]
    return Conversation(messages, where, str(row.get("id", "")), row.get("meta") or {})
