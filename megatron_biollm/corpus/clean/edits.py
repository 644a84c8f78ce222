"""What a cleaning rule hands back: stretches of a text and what they become."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from megatron_biollm.corpus.document import Document, Section

# Start and end in characters, and the replacement, as `Document.edit` takes them.
Edit = tuple[int, int, str]


def cuts(pattern: re.Pattern[str], text: str, new: str = "") -> Iterator[Edit]:
    """Every match of a pattern, to be replaced by `new`."""
    return ((match.start(), match.end(), new) for match in pattern.finditer(text))


def cut(text: str, start: int, end: int) -> Edit:
    """Takes a stretch away, and with it the line break if it is a whole line."""
    is_line = (start == 0 or text[start - 1] == "\n") and text.startswith("\n", end)
    return start, end + is_line, ""


def in_order(edits: Iterable[Edit]) -> list[Edit]:
    """Sorted, the later of two that overlap left out, and with it what changes nothing."""
    kept: list[Edit] = []
    for edit in sorted(set(edits)):
        changes = edit[0] < edit[1] or edit[2]
        if changes and (not kept or edit[0] >= kept[-1][1]):
            kept.append(edit)
    return kept


def shrink(text: str, start: int, end: int, new: str) -> Edit:
    """The same edit without the characters that stay at either side."""
    old = text[start:end]
    same = 0
    while same < min(len(old), len(new)) and old[same] == new[same]:
        same += 1
    tail = 0
    while tail < min(len(old), len(new)) - same and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    return start + same, end - tail, new[same : len(new) - tail]


def tighten(document: Document) -> Document:
    """Section marks without the white space that cuts left at their ends."""
    text, tight = document.text, []
    for section in document.sections:
        part = text[section.start : section.end]
        start = section.start + len(part) - len(part.lstrip())
        if part := part.strip():
            tight.append(Section(section.name, start, start + len(part)))
    return replace(document, sections=tuple(tight))
