"""Mentions as a language model writes them: one `type<TAB>text` line for each, or `none`.

A line says what is mentioned, not where: it stands for every occurrence in the text, longest
mentions first, so that a name inside a longer one is not taken for itself. White space does not
count, for tokenised texts put spaces where a model may not. Marks of a list before a line are
passed over, and a colon or a bar after a known type is as good as a tab: models that have seen no
example write so.
"""

import re
from collections.abc import Iterator

from megatron_biollm.evaluation.items import Span, SpanItem

NONE = "none"
_BULLET = re.compile(r"(?:[-*•]|\d+[.)])\s+")
_LOOSE = re.compile(r"\\t|[:|]")


def write_spans(item: SpanItem) -> str:
    """The mentions of an item, each type and text once, in order of appearance."""
    lines = dict.fromkeys(f"{span.type}\t{_one_line(item.text, span)}" for span in item.spans)
    return "\n".join(lines) or NONE


def _one_line(text: str, span: Span) -> str:
    return " ".join(text[span.start : span.end].split())


def read_spans(text: str, item: SpanItem) -> tuple[Span, ...] | None:
    """The mentions that a text names, found in the item's own; None where no line can be read.

    Lines of other types than the item's, or of texts that do not occur, say nothing.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line.casefold().rstrip(".") for line in lines]
    wanted = [pair for line in lines if (pair := _read_line(line, item.types))]
    if not wanted and NONE not in named:
        return None
    return align(item.text, wanted)


def _read_line(line: str, types: tuple[str, ...]) -> tuple[str, str] | None:
    line = _BULLET.sub("", line, count=1) if _BULLET.match(line) else line
    known = {one.casefold(): one for one in types}
    kind, tab, mention = line.partition("\t")
    if not tab and known:
        kind, mention = (*_LOOSE.split(line, maxsplit=1), "")[:2]
    kind, mention = kind.strip(), mention.strip()
    if not kind or not mention or (known and kind.casefold() not in known):
        return None
    return known.get(kind.casefold(), kind), mention


def align(text: str, wanted: list[tuple[str, str]]) -> tuple[Span, ...]:
    """Every occurrence in a text of what is wanted, as (type, mention): longest first, none twice.

    As written where it occurs so; else in any case. As a whole word where it occurs so; else
    inside one.
    """
    places = [place for place, letter in enumerate(text) if not letter.isspace()]
    packed = "".join(text[place] for place in places)
    taken = bytearray(len(packed))
    spans = []
    for kind, mention in sorted(dict.fromkeys(wanted), key=lambda pair: -len(_pack(pair[1]))):
        for start, end in _occurrences(text, packed, places, _pack(mention)):
            if not any(taken[start:end]):
                taken[start:end] = b"\1" * (end - start)
                spans.append(Span(places[start], places[end - 1] + 1, kind))
    return tuple(sorted(spans))


def _pack(text: str) -> str:
    return "".join(text.split())


def _occurrences(text: str, packed: str, places: list[int], mention: str) -> list[tuple[int, int]]:
    """Where a mention is in the packed text, by the strictest rule that finds it."""
    found = list(_find(packed, mention)) or list(_find(_lower(packed), _lower(mention)))
    whole = [
        (start, end) for start, end in found if _is_whole(text, places[start], places[end - 1] + 1)
    ]
    return whole or found


def _lower(text: str) -> str:
    """In small letters, as many as there were."""
    return "".join(one if len(one.lower()) != 1 else one.lower() for one in text)


def _find(text: str, part: str) -> Iterator[tuple[int, int]]:
    start = text.find(part) if part else -1
    while start >= 0:
        yield start, start + len(part)
        start = text.find(part, start + 1)


def _is_whole(text: str, start: int, end: int) -> bool:
    """Whether no word goes on beyond either end."""
    before = start > 0 and text[start - 1].isalnum() and text[start].isalnum()
    after = end < len(text) and text[end - 1].isalnum() and text[end].isalnum()
    return not before and not after
