"""White space: one blank between words, none at line ends, at most one blank line.

A run with a tab in it becomes one tab (cells of a table), and list items keep their indentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from megatron_biollm.corpus.clean.edits import Edit

_RUN = re.compile(r"\s{2,}")
_ITEM = re.compile(r"(?:[-*•·o–+]|\d{1,2}[.)]|[A-Za-z][.)])[ \t]")
DEEPEST_ITEM = 8


def white_space(text: str) -> Iterator[Edit]:
    """Runs of white space, and all of it at either end of the text."""
    first, last = len(text) - len(text.lstrip()), len(text.rstrip())
    yield 0, first, ""
    for match in _RUN.finditer(text, first, last):
        run = match[0]
        if run != "\n\n" and (new := _one(run, text, match.end())) != run:
            yield match.start(), match.end(), new
    yield max(first, last), len(text), ""


def _one(run: str, text: str, end: int) -> str:
    if "\n" not in run:
        return "\t" if "\t" in run else " "
    indent = len(run) - run.rfind("\n") - 1
    kept = min(indent, DEEPEST_ITEM) if indent and _ITEM.match(text, end) else 0
    return "\n" * min(run.count("\n"), 2) + " " * kept
