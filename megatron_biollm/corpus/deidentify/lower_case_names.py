"""Names in lower case, in texts that do without capitals."""

from __future__ import annotations

import re
from collections.abc import Iterator

from megatron_biollm.corpus.deidentify.lexicon import Lexicon
from megatron_biollm.corpus.deidentify.spans import Span
from megatron_biollm.corpus.deidentify.words import NAME, UNKNOWN, Coder

LOWER_WORD = re.compile(r"(?<![\w'’-])[a-z]{3,30}(?![\w-])")
_LOWER_FOREIGN = re.compile(r"(?<![\w'’-])(?=[a-z]{0,20}[^\x00-\x7f])[a-zß-ÿĀ-ɏΆ-ώ]{4,30}(?![\w-])")
_NEXT_WORD = re.compile(r"\s(?:[a-z]\.?\s)?([^\W\d_]{3,30})")
_WORD_BEFORE = re.compile(r"(?<![\w'’-])([^\W\d_]{3,30})\s(?:[a-z]\.?\s)?\Z")
_SENTENCE_END = re.compile(r"[.!?\n]")


class LowerCaseNames:
    """Frequent first names anywhere; other names, and words unknown, in lower-case sentences."""

    def __init__(self, lexicon: Lexicon, coder: Coder) -> None:
        self.lexicon, self.coder = lexicon, coder

    def __call__(self, text: str) -> list[Span]:
        words = [m for m in LOWER_WORD.finditer(text) if not self._is_known(m[0])]
        spans = [span for word in words for span in self._judge(text, *word.span(), word[0])]
        return spans if text.isascii() else [*spans, *self._foreign(text)]

    def _is_known(self, word: str) -> bool:
        return word in self.lexicon.words or word in self.lexicon.safe

    def _judge(self, text: str, start: int, end: int, word: str) -> Iterator[Span]:
        lexicon = self.lexicon
        if lexicon.is_name(word):
            if word in lexicon.common_first or _is_lower_sentence(text, start):
                yield Span(*self._extend(text, start, end), "name", "lower_case", 15)
        elif self.coder.code(word) == UNKNOWN:
            wider = self._extend(text, start, end)
            # One strange word may be a slip of the pen; two side by side are a name.
            if wider != (start, end) and _is_lower_sentence(text, start):
                yield Span(*wider, "name", "lower_case", 10)

    def _foreign(self, text: str) -> Iterator[Span]:
        for match in _LOWER_FOREIGN.finditer(text):
            if not self._is_known(match[0]) and _is_lower_sentence(text, match.start()):
                yield Span(*match.span(), "name", "lower_case", 10)

    def _extend(self, text: str, start: int, end: int) -> tuple[int, int]:
        """A name in lower case with the words beside it that are names or unknown."""
        after = _NEXT_WORD.match(text, end)
        if after and self._goes_along(after[1]):
            end = after.end()
        before = _WORD_BEFORE.search(text, max(0, start - 36), start)
        if before and self._goes_along(before[1]):
            start = before.start(1)
        return start, end

    def _goes_along(self, word: str) -> bool:
        low = word.lower()
        return low not in self.lexicon.words and self.coder.code(low) in (NAME, UNKNOWN)


def _is_lower_sentence(text: str, position: int) -> bool:
    """No capital between the ends of sentence before and after; looks 200 characters far."""
    start = position
    low = max(0, position - 200)
    for match in _SENTENCE_END.finditer(text, low, position):
        low = match.end()
    start = low
    match = _SENTENCE_END.search(text, position, position + 200)
    end = match.start() if match else min(len(text), position + 200)
    return text[start:end].islower()
