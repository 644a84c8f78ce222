"""A second look at a note that was de-identified, with other rules than the first.

The first pass asks which words are identifiers; this one asks which words it cannot vouch for:
capitalised words of no dictionary, digits in a row, anything that looks like a date, marks such as
"@", and names that header fields of the original gave. It over-reports on purpose: its counts
bound the risk from above, they do not prove a leak.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from megatron_biollm.corpus.deidentify.lexicon import Lexicon

KINDS = ("unknown_word", "digits", "date_shape", "net_mark", "header_name", "title_name", "holiday")

_DIGITS = re.compile(r"\d(?:[ -]?\d){6,}")
_DATE = re.compile(r"\d(?<!\w\d)(?:\d?([/-])\d{1,2}\1(?:\d{2}|\d{4})|\d{3}-\d{2}-\d{2})\b")
# What begins with a literal is found fastest; that a word begins there is looked at afterwards.
_MONTH_DAY = re.compile(r"(?:Jan|Feb|Apr|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}\.?\s\d{1,2}\b")
_NET = re.compile(r"\S@\S|://|\bwww\.")
_WORD = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]{2,}")
_HEADER_LINE = re.compile(
    r"(?im)^\s{0,8}(?:patient|patient name|pt|name|mother|father|spouse|attending|physician)"
    r"\s{0,2}:\s{0,4}(\S[^\n]{0,60})$"
)
_TITLE_NAME = re.compile(r"(?:Mr|Mrs|Ms|Dr)\.? ([A-Z][a-z]{2,})")
_HOLIDAY = re.compile(
    r"(?:Christmas|Thanksgiving|Easter|Halloween|New Year(?:'s)?|Labor Day|Memorial Day"
    r"|Independence Day|Fourth of July|Valentine's Day|Hanukkah|Ramadan)\b"
)


@dataclass(frozen=True)
class Residual:
    """Characters of the new text that may still identify; `kind` is one of `KINDS`."""

    start: int
    end: int
    kind: str


class Auditor:
    """Reports what may be left in a text.

    Args of a call: the new text, where its surrogates stand (they are passed over), the original
    text (its header fields tell names), further names that are known.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        self.lexicon = lexicon

    def __call__(
        self,
        text: str,
        surrogates: Sequence[tuple[int, int]] = (),
        original: str = "",
        known: Sequence[str] = (),
    ) -> list[Residual]:
        found = [*self._shapes(text), *self._words(text)]
        found += self._header_names(text, original, known)
        starts = [start for start, _ in surrogates]
        kept = {r for r in found if not _within(r, starts, surrogates)}
        return sorted(kept, key=lambda r: (r.start, r.end, r.kind))

    def _shapes(self, text: str) -> Iterator[Residual]:
        for kind, pattern in (("digits", _DIGITS), ("date_shape", _DATE)):
            yield from (Residual(*m.span(), kind) for m in pattern.finditer(text))
        if "@" in text or "://" in text or "www." in text:
            yield from (Residual(*m.span(), "net_mark") for m in _NET.finditer(text))
        for kind, pattern in (("date_shape", _MONTH_DAY), ("holiday", _HOLIDAY)):
            yield from (Residual(*m.span(), kind) for m in _words_of(pattern, text))
        yield from (Residual(*m.span(1), "title_name") for m in _words_of(_TITLE_NAME, text))

    def _words(self, text: str) -> Iterator[Residual]:
        lexicon = self.lexicon
        for match in _WORD.finditer(text):
            low = match[0].lower()
            if (
                low not in lexicon.words
                and low not in lexicon.safe
                and low not in lexicon.permitted
            ):
                yield Residual(*match.span(), "unknown_word")

    def _header_names(self, text: str, original: str, known: Sequence[str]) -> Iterator[Residual]:
        names = {word.lower() for word in known if len(word) > 2}
        for match in _HEADER_LINE.finditer(original):
            words = re.findall(r"[^\W\d_]{3,}", match[1])
            if len(words) <= 4:
                names |= {w.lower() for w in words if self._is_name(w.lower())}
        if not names:
            return
        alternatives = "|".join(map(re.escape, sorted(names)))
        for match in re.finditer(rf"(?i)(?<!\w)(?:{alternatives})(?!\w)", text):
            yield Residual(*match.span(), "header_name")

    def _is_name(self, word: str) -> bool:
        return word not in self.lexicon.words and word not in self.lexicon.safe


def _words_of(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Matches that begin a word."""
    return (m for m in pattern.finditer(text) if not _follows_word(text, m.start()))


def _follows_word(text: str, start: int) -> bool:
    before = text[max(0, start - 1) : start]
    return before.isalnum() or before == "_"


def _within(
    residual: Residual, starts: Sequence[int], surrogates: Sequence[tuple[int, int]]
) -> bool:
    index = bisect_right(starts, residual.start) - 1
    return index >= 0 and residual.start < surrogates[index][1]
