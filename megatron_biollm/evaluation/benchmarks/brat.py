"""Brat standoff: a text, and beside it a file of the mentions in it.

A line `T1<tab>type start end<tab>text` is a mention, whose offsets count characters of the `.txt`
file; others (relations, notes) are passed over. https://brat.nlplab.org/standoff.html
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.archive import decode, read_members
from megatron_biollm.evaluation.items import Span

_MENTION = re.compile(r"(T\d+)\t(\S+) (\d+) (\d+)\t(.*)")


@dataclass(frozen=True)
class StandoffText:
    """One document."""

    name: str
    text: str
    spans: tuple[Span, ...]


def read_brat(path: Path, types: Sequence[str]) -> list[StandoffText]:
    """The documents of a folder or an archive, by name.

    Args:
        types: that mentions may have.

    Raises:
        UserError: the archive is damaged, a text or its mentions are missing, a mention is of
            another type or its text is not the one at its place.
    """
    documents = list(_documents(path, frozenset(types)))
    if not documents:
        raise UserError(f"{path} has no .txt and .ann files; in brat standoff each text has both")
    return documents


def _documents(path: Path, types: frozenset[str]) -> Iterator[StandoffText]:
    members = dict(read_members(path, (".txt", ".ann")))
    for name in members:
        stem, suffix = name[:-4], name[-4:]
        other = stem + (".ann" if suffix == ".txt" else ".txt")
        if other not in members:
            raise UserError(f"{path} has {name} but not {other}; each text has both")
        if suffix == ".txt":
            text = decode(members[name], f"{path}:{name}")
            notes = decode(members[other], f"{path}:{other}")
            spans = _spans(text, notes, types, f"{path}:{other}")
            yield StandoffText(PurePosixPath(stem).name, text, tuple(spans))


def _spans(text: str, notes: str, types: frozenset[str], where: str) -> Iterator[Span]:
    for number, line in enumerate(notes.split("\n"), 1):
        if not line.startswith("T"):
            continue
        match = _MENTION.fullmatch(line.rstrip("\r"))
        if not match:
            raise UserError(
                f"{where}:{number} is {line!r:.80}; a mention is T1, type start end, text"
            )
        _, kind, start, end, mention = match.groups()
        if kind not in types:
            raise UserError(
                f"{where}:{number} has the type {kind!r}; there are {', '.join(sorted(types))}"
            )
        if text[int(start) : int(end)] != mention:
            raise UserError(
                f"{where}:{number}: {mention!r} is said to be at {start}-{end}, where "
                f"{text[int(start) : int(end)]!r:.80} is; the file is not the published one"
            )
        yield Span(int(start), int(end), kind)
