"""Citation markers in the running text of articles.

Numbers that point into the list of references, which is left out, mean nothing without it: in
brackets (``[1, 3–5]``), raised, or glued to a word they go, with the brackets and commas around
them. Names and years ("Smith et al., 2005") belong to their sentence and stay, and so does a
number that does ("see reference 12").
"""

from __future__ import annotations

import re
from functools import reduce

from lxml import etree

from megatron_biollm.corpus.readers.inline import text_of
from megatron_biollm.corpus.readers.xml import local_name

# Characters that no text may hold, around a number that may go (OPEN, CLOSE), for a raised
# number that does go (GONE), and around raised commas between such (AND, END).
_OPEN, _CLOSE, _GONE, _AND, _END = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3", "\ufdd4"
_MARKS = re.compile(f"[{_OPEN}{_CLOSE}{_GONE}{_AND}{_END}]")

_NUMBERS = re.compile(r"[\s\d,;:.*†‡§()\[\]{}‒–—−-]*[a-f]?[\s,;)\]]*")
_YEAR = re.compile(r"\b(?:1[89]|20)\d\d[a-z]?\b")
_SEPARATORS = re.compile(r"[\s,;.‒–—−-]*")
_ONE = f"(?:{_OPEN}[^{_CLOSE}]*{_CLOSE}|{_GONE})"
_BETWEEN = r"(?:[\s,;.‒–—−-]|and|&)*"
_LEAD = r"(?:(?:refs?\.?|reviewed in|e\.g\.,?|cf\.?|see|also)\s*)*"
_BRACKETED = re.compile(
    rf"[\[(]\s*{_LEAD}{_ONE}(?:{_BETWEEN}{_ONE})*\s*[\])]",
    re.IGNORECASE,
)
_RUN = re.compile(f"{_GONE}(?:{_AND}[^{_END}]*{_END}|{_BETWEEN}{_GONE})*")
_GLUED = re.compile(rf"(?<=[^\W\d]|[.,;:)\]]){_ONE}(?:[,;–-]?{_ONE})*")


def marked(child: etree._Element, name: str) -> str | None:
    """Puts marks in place of citations, for `unmarked`; a `Replace` of `inline.text_of`."""
    if name == "xref" and child.get("ref-type") in ("bibr", "ref"):
        return _marked_reference(child)
    if name not in ("sup", "superscript"):
        return None
    inside = text_of(child, marked)
    if _SEPARATORS.fullmatch(_without(inside)):
        return _GONE if _OPEN in inside or _GONE in inside else f"{_AND}{inside}{_END}"
    return None


def unmarked(text: str) -> str:
    """The text without the citations that go."""
    if not _MARKS.search(text):
        return text
    text = _RUN.sub(_GONE, _BRACKETED.sub(_GONE, text))
    # Brackets around brackets: "(e.g. [3])".
    text = _GLUED.sub("", _BRACKETED.sub(_GONE, text))
    first, *others = text.split(_GONE)
    return _MARKS.sub("", reduce(_joined, others, first))


def _joined(before: str, behind: str) -> str:
    """Without the space before the citation; "et al. [3]." has one full stop without it."""
    before = before.rstrip()
    return before + (behind[1:] if before.endswith(".") and behind.startswith(".") else behind)


def _marked_reference(xref: etree._Element) -> str | None:
    text = text_of(xref)
    if not text or not _NUMBERS.fullmatch(text) or _YEAR.search(text):
        return None
    if len(xref) == 1 and local_name(xref[0]) == "sup" and not (xref.text or "").strip():
        return _GONE
    if text[0] in "[(" and text[-1] in "])":
        return _GONE
    return f"{_OPEN}{text}{_CLOSE}"


def _without(text: str) -> str:
    return re.sub(_ONE, "", text)
