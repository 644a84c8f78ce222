"""Lists of references at the end of a text, and the numbers that point to them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from megatron_biollm.corpus.clean.edits import Edit
from megatron_biollm.corpus.document import Document

SECTION_NAMES = frozenset(("references", "bibliography", "literature cited", "reference list"))

_HEADING = re.compile(
    r"^[ \t]*(?:\d{1,2}\.?[ \t]+)?(?:References(?: and notes| cited)?|REFERENCES|Bibliography"
    r"|BIBLIOGRAPHY|Literature cited|LITERATURE CITED|Reference list)[ \t]*:?[ \t]*$",
    re.MULTILINE,
)
_YEAR = re.compile(r"\b(?:1[89]|20)\d\d[a-z]?\b")
_LOOKS_CITED = re.compile(
    r"^[ \t]*\[?\d{1,3}[\].)]|et al|\d{1,4}(?:\(\d+\))?:\s?[A-Z]?\d+|doi|https?://"
)

# A heading "References" over fewer entries than these may stand in a contents list.
FEWEST_ENTRIES = 3
ENTRY_SHARE = 0.6

_NUMBERS = r"\[\d{1,3}(?:[ \t]?[,;–-][ \t]?\d{1,3}){0,30}\]"
_BRACKET = re.compile(
    r"(?P<word>(?<![\w-])[A-Za-z][a-z]{2,}|[.,;)])"
    rf"(?P<cut>[ \t]?{_NUMBERS}(?:[,;–-]?[ \t]?{_NUMBERS}){{0,30}})(?=[\s.,;:)]|\Z)"
)
# Words before a bracket that holds a range or an interval.
_NOT_BEFORE_CITATION = frozenset(
    (
        "range", "ranges", "iqr", "interval", "score", "scores", "mean", "median", "from",
        "between", "age", "aged", "years", "table", "example", "formula", "compound", "compounds",
        "claim", "embodiment",
    )
)  # fmt: skip
FEWEST_CITATIONS = 5


def sections_named(names: frozenset[str], document: Document) -> Iterator[Edit]:
    """Whole sections of these names, in lower case and with a straight apostrophe."""
    for section in document.sections:
        if section.name.lower().replace("’", "'").strip(" .:") in names:
            yield section.start, section.end, ""


def reference_lists(document: Document) -> Iterator[Edit]:
    """Sections named as references, and in plain text what follows such a heading.

    The lines after a heading go as long as at least six in ten look like references (a year
    and a number, "et al", pages or a DOI); otherwise none goes.
    """
    if named := list(sections_named(SECTION_NAMES, document)):
        yield from named
        return
    headings = list(_HEADING.finditer(document.text, len(document.text) // 4))
    if headings and (end := _end_of_list(document.text, headings[-1].end())):
        yield headings[-1].start(), end, ""


def _end_of_list(text: str, start: int) -> int | None:
    """Where the last line ends that looks like a reference; None if it is no list of them."""
    end, at, entries, lines = None, start, 0, 0
    for line in text[start:].splitlines(keepends=True):
        at += len(line)
        if not line.strip():
            continue
        lines += 1
        if _YEAR.search(line) and _LOOKS_CITED.search(line):
            entries += 1
            end = at
        if lines >= FEWEST_ENTRIES and entries < ENTRY_SHARE * lines:
            break
    return end if entries >= FEWEST_ENTRIES else None


def citation_numbers(text: str) -> Iterator[Edit]:
    """Bracketed numbers such as [3, 5-7], where the text as a whole shows that it cites so.

    Numbers must ascend, stand behind a word that announces no range, and reach from 1; at least
    five in a text. Intervals ([2.1-3.4], [1,225-2,540]), locants ([1,2,4]triazolo) and mass
    numbers ([13]C) stay.
    """
    if "[1" not in text:
        return
    found = [match for match in _BRACKET.finditer(text) if _is_citation(match)]
    if len(found) >= FEWEST_CITATIONS and any(_numbers(match)[0] == 1 for match in found):
        yield from ((match.start("cut"), match.end("cut"), "") for match in found)


def _numbers(match: re.Match[str]) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", match["cut"])]


def _is_citation(match: re.Match[str]) -> bool:
    numbers = _numbers(match)
    ascends = all(a < b for a, b in pairwise(numbers))
    return ascends and numbers[0] > 0 and match["word"].lower() not in _NOT_BEFORE_CITATION
