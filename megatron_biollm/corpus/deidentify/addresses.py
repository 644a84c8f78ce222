"""How far an address reaches: from an anchor over the numbers, names and short lines beside it."""

from __future__ import annotations

import re

from megatron_biollm.corpus.deidentify.lexicon import Lexicon
from megatron_biollm.corpus.deidentify.spans import Span
from megatron_biollm.corpus.deidentify.vocabulary import (
    ADDRESS_PARTICLES,
    FUNCTION_WORDS,
    HOUSE_WORDS,
)
from megatron_biollm.corpus.deidentify.words import (
    COMMON,
    EITHER,
    NAME,
    PERMITTED,
    TITLE,
    UNKNOWN,
    WORD,
    Coder,
)

_LONGEST_LINE = 12  # words beside the anchor on its own line
_MOST_LINES = 5
_WORD_AFTER = re.compile(
    r"(?:,?[ \t]{1,2}|,|\.,?[ \t]|-)\(?"
    r"(?P<word>\d{1,6}[A-Za-z]?(?:[/-]\d{1,4}[A-Za-z]?)?(?![\w/%]|\.\d)|[^\W\d_][\w'’.-]{0,30})\)?"
)
_WORD_BEFORE = re.compile(
    r"(?<![\w.,/#-])(?P<word>\d{1,6}[A-Za-z]?|[^\W\d_][\w'’-]{0,30})"
    r"(?:,?[ \t]{1,2}|\.[ \t]|[ \t]-[ \t]|,?[ \t]?\n[^\w\n]{0,8})\Z"
)
_LINE_BELOW = re.compile(
    r"[ \t,.]{0,3}\r?\n(?:=20)?[^\w\n]{0,8}(?P<line>[^\W_][^\n:;=]{0,40}?)[ \t]{0,3}"
    r"(?=,?[ \t]{0,2}\n|$|(?<!St)[.?!:]|,\s[a-z]|\s(?:after|for|and|in|on|at|is|now|please|was)\s)"
)
_COMES_NUMBER = re.compile(
    r",|[ \t]*\n[^\w\n]{0,8}(?:[A-Z]{1,3}|nan|\d{1,3})?[ \t]*\n?[^\n]{0,30}\d{4,5}"
)

# Up to three short lines without a colon, and then one that ends in a postcode.
_BLOCK = re.compile(
    r"(?:[ \t,]{0,3}\r?\n(?:=20)?[^\w\n]{0,8}[^\W\d_][^\n:;=?!]{0,32}){0,3}"
    r"(?:[ \t,]{0,3}\r?\n(?:=20)?[^\w\n]{0,8}(?:[^\W\d_][^\n:;=?!]{0,32})?)"
    r"(?P<code>(?<=[\s,=0>*.(])\d{3,6}(?:-\d{3,4})?(?: ?[A-Z]{2})?)"
    r"(?=[ \t]*(?:\n|$)|[.,?!](?:\s|$))"
)
_NUMBER_NEXT = re.compile(r"\s{1,3}(?:[^\W\d_]\w{2,12}\s){0,2}\d{3,5}(?!\w)")
_NEXT_WORD = re.compile(r" ([^\W\d_]{3,12})")


class AddressGrower:
    """Gives the span of the address around an anchor."""

    def __init__(self, lexicon: Lexicon, coder: Coder) -> None:
        self.lexicon, self.coder = lexicon, coder

    def __call__(self, text: str, start: int, end: int, rule: str) -> Span:
        end = self._along(text, end)
        for _ in range(_LONGEST_LINE):
            before = _WORD_BEFORE.search(text, max(0, start - 48), start)
            if not before or not self._leads(before):
                break
            start = before.start("word")
        end = self._block(text, end)
        for _ in range(_MOST_LINES):
            below = self._line_below(text, end)
            if below == end:
                break
            end = self._along(text, below)
        return Span(start, end, "location", rule, 48)

    def _along(self, text: str, end: int) -> int:
        """The end of the address on its own line."""
        for _ in range(_LONGEST_LINE):
            after = _WORD_AFTER.match(text, end)
            if not after or not self._belongs(after["word"], text, after.end()):
                break
            if text[after.end() : after.end() + 1] == ":":
                break
            end = after.end()
        return end

    def _leads(self, before: re.Match[str]) -> bool:
        """Whether the word before an address is its first: a number, a name, "ul.", "A."."""
        word = before["word"]
        if "\n" in before[0]:
            return word.isdigit()
        if "." in before[0]:
            return word.lower() in ("ul", "av", "str", "c") or (len(word) == 1 and word.isupper())
        if word in ("Na", "Ob", "Pod", "Za", "Pri", "V"):
            return True
        if len(word) < 5 and word.istitle() and word.lower() not in FUNCTION_WORDS:
            return self.coder.code(word) != TITLE
        return word[0].isdigit() or self.coder.code(word) in (UNKNOWN, NAME)

    def _block(self, text: str, end: int) -> int:
        """The end of the lines below, whatever their words, when the last ends in a postcode."""
        block = _BLOCK.match(text, end)
        if block is None:
            return end
        words = WORD.findall(block[0])
        small = [w for w in words if w.islower() and w in FUNCTION_WORDS]
        return block.end("code") if len(words) < 12 and len(small) < 2 else end

    def _line_below(self, text: str, end: int) -> int:
        """The end of the short line below, a town or a postcode; `end` where it is none."""
        line = _LINE_BELOW.match(text, end)
        if not line:
            return end
        words = WORD.findall(line["line"])
        has_number = any(c.isdigit() for c in line["line"])
        small = [w for w in words if w.islower() and w in self.lexicon.words]
        heading = text[line.end() : line.end() + 1] == ":" and not has_number
        if heading or len(words) > 5 or len(small) > 1:
            return end
        proper = any(self._is_proper(w) for w in words)
        if len(words) == 1 and len(words[0]) < 4 and "," in text[end : line.start("line")]:
            return line.end("line")
        goes_on = all(w[0].isupper() for w in words) and _COMES_NUMBER.match(text, line.end("line"))
        return line.end("line") if has_number or proper or goes_on else end

    def _is_proper(self, word: str) -> bool:
        short = (word.isupper() and len(word) < 4) or word == "nan"
        return short or self.coder.code(word) not in (COMMON, TITLE)

    def _belongs(self, word: str, text: str, end: int) -> bool:
        """Whether the word behind an address, which ends at `end`, is a part of it."""
        word = word.rstrip(".")
        if word[0].isdigit() or word in ADDRESS_PARTICLES or word in HOUSE_WORDS:
            return True
        if len(word) < 4 and _NUMBER_NEXT.match(text, end):
            return True
        following = _NEXT_WORD.match(text, end)
        if following and f"{word} {following[1]}".lower() in self.lexicon.permitted:
            return True
        code = self.coder.code(word)
        if code in (UNKNOWN, NAME, EITHER):
            return word[0].isupper() or not word.isascii() or code != EITHER
        if word[0].islower():
            return code == PERMITTED or self.coder.code(word.title()) == PERMITTED
        # A capitalised word that goes on in the line of an address is a part of it.
        return code != TITLE and (word == "New" or word.lower() not in FUNCTION_WORDS)
