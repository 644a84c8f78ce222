"""Sentences in columns: a token and its tag in each line, an empty line after each sentence.

IOB2 as of the CoNLL shared tasks (https://aclanthology.org/W02-2024). Lines `-DOCSTART-` (with a
tag or without) and `###MEDLINE:number` begin a document.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.entities import tag_spans
from megatron_biollm.evaluation.files import read_text
from megatron_biollm.evaluation.items import Span

_DOCUMENT = ("-DOCSTART-", "###MEDLINE:")


@dataclass(frozen=True)
class Tagged:
    """A sentence of tokens with their tags.

    Attributes:
        where: `file:line` of its first token.
        document: number of its document in the file, from 1; 0 where the file tells none.
    """

    where: str
    document: int
    tokens: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def packed(self) -> str:
        """Its letters without white space."""
        return "".join("".join(self.tokens).split())

    def spans(self, starts: Sequence[int], ends: Sequence[int]) -> tuple[Span, ...]:
        """Its mentions, where tokens begin and end at these characters."""
        return tuple(
            Span(starts[one.start], ends[one.end - 1], one.type) for one in tag_spans(self.tags)
        )

    def joined(self) -> tuple[str, tuple[Span, ...]]:
        """Its tokens with spaces between, and its mentions in that text."""
        starts, ends, length = [], [], 0
        for token in self.tokens:
            starts.append(length)
            ends.append(length + len(token))
            length += len(token) + 1
        return " ".join(self.tokens), self.spans(starts, ends)


def read_tagged(path: Path, types: Sequence[str]) -> list[Tagged]:
    """The sentences of a file.

    Args:
        path: the file, plain or gzipped.
        types: that its tags may name.

    Raises:
        UserError: it cannot be read, a line is not a token and a tag, a tag names another type or
            goes on with a mention that did not begin, or there is no sentence.
    """
    sentences = list(_sentences(path, frozenset(types)))
    if not sentences:
        raise UserError(f"{path} has no sentence; it must have lines of a token, a tab and a tag")
    return sentences


def _sentences(path: Path, types: frozenset[str]) -> Iterator[Tagged]:
    document, first, rows = 0, 0, []
    for number, line in enumerate([*read_text(path).split("\n"), ""], 1):
        if line.startswith(_DOCUMENT):
            document += 1
        elif line.strip():
            first = first if rows else number
            rows.append(_row(line.rstrip("\r"), types, rows, f"{path}:{number}"))
        elif rows:
            tokens, tags = zip(*rows, strict=True)
            yield Tagged(f"{path}:{first}", document, tokens, tags)
            rows = []


def _row(line: str, types: frozenset[str], rows: list, where: str) -> tuple[str, str]:
    token, _, tag = line.partition("\t")
    tag = tag.strip()
    prefix, _, kind = tag.partition("-")
    if not token.strip() or not (tag == "O" or (prefix in ("B", "I") and kind)):
        raise UserError(f"{where} is {line!r:.80}; it must be a token, a tab and O, B-type, I-type")
    if kind and kind not in types:
        raise UserError(f"{where} has the type {kind!r}; there are {', '.join(sorted(types))}")
    if prefix == "I" and (not rows or rows[-1][1] not in (f"B-{kind}", tag)):
        raise UserError(f"{where} goes on ({tag}) with a mention that did not begin (IOB2)")
    return token, tag
