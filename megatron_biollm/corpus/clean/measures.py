"""What can be counted in a text, each share between 0 and 1, fast enough for every document."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import cached_property

from datatrove.pipeline.filters.gopher_repetition_filter import find_all_duplicate, find_duplicates

_LETTERS = bytes(range(ord("A"), ord("Z") + 1)) + bytes(range(ord("a"), ord("z") + 1))
_BLANKS = b" \t\n"
_REPLACED = "?"

# Base64, hexadecimal dumps and unbroken sequences; chemical names have hyphens and brackets.
SHORTEST_ENCODED = 60
_ENCODED = re.compile(r"[A-Za-z0-9+/]{60,}={0,2}")
# Sequence listings: nucleotides by tens, or amino acids by their three letters.
_RESIDUES = re.compile(
    r"\b(?:[acgtun]{10}|[ACGTUN]{10}|Ala|Arg|Asn|Asp|Cys|Gln|Glu|Gly|His|Ile|Leu|Lys|Met|Phe|Pro|Ser"
    r"|Thr|Trp|Tyr|Val|Xaa)\b"
)
# Bad scans have signs between letters and figures between small letters, broken encodings the
# replacement character, private codes and remains of mojibake. Apart, because a pattern that begins
# with one class of characters is looked for ten times faster than one of alternatives.
_SIGN = re.compile(r"[~^|\\¬¦§¤¢£¥«»{}<>*#!?][A-Za-z]")
_FIGURE = re.compile(r"[0-9$][a-z]{2}")
_LOST = re.compile(r"[\ufffd\ue000-\uf8ff]")
_MOJIBAKE = re.compile(r"[ÃÂâ][\u0080-\u00bf€‚„†‡‰‹‘’“”•–—™›]")
_SINGLE_LETTER = re.compile(r"(?<!\S)[A-Za-z](?!\S)")
# Four and more small letters without a vowel: English has hardly any, keyboards and noise do.
_NO_VOWEL = re.compile(r"\b[bcdfghjklmnpqrstvwxz]{4,}\b")
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
_LINE_BREAKS = re.compile(r"\n+")
_VOWELS = b"aeiouyAEIOUY"

# Some counts are slow and nearly always nothing. They are made only where a fast one leaves room
# for them: letters can stand alone only in short words, vowels lack only where there are few, and
# a listing has short or ten-letter words.
_SHORT_WORDS, _LONG_WORDS = 3.6, 7.0
_FEW_VOWELS = 0.3

# Repetition is looked into this far; a file of one line repeated shows it long before.
_REPETITION_CHARACTERS = 500_000


@dataclass(frozen=True)
class Measures:
    """Counts of one text; each is made when it is first asked for."""

    text: str

    @cached_property
    def words(self) -> list[str]:
        """What stands between white space."""
        return self.text.split()

    @cached_property
    def _visible(self) -> int:
        return max(1, len(self._ascii.translate(None, _BLANKS)))

    @cached_property
    def _ascii(self) -> bytes:
        return self.text.encode("ascii", "replace")

    def _per_word(self, pattern: re.Pattern[str]) -> float:
        return len(pattern.findall(self.text)) / max(1, len(self.words))

    @cached_property
    def _letter_count(self) -> int:
        return len(self._ascii) - len(self._ascii.translate(None, _LETTERS))

    @cached_property
    def mean_word_length(self) -> float:
        """Characters per word."""
        return self._visible / max(1, len(self.words))

    @property
    def letters(self) -> float:
        """Letters among visible characters; all beyond ASCII count as letters."""
        others = len(self._ascii.translate(None, _LETTERS + _BLANKS))
        beyond = 0 if self.text.isascii() else self._ascii.count(b"?") - self.text.count(_REPLACED)
        return 1 - (others - beyond) / self._visible

    @property
    def encoded(self) -> float:
        """Characters in runs of sixty and more letters and figures."""
        if max(map(len, self.words), default=0) < SHORTEST_ENCODED:
            return 0.0
        long_words = (word for word in self.words if len(word) >= SHORTEST_ENCODED)
        runs = (run for word in long_words if "://" not in word for run in _ENCODED.findall(word))
        return sum(map(len, runs)) / self._visible

    @property
    def residues(self) -> float:
        """Words of a sequence listing per word."""
        if _SHORT_WORDS + 1 < self.mean_word_length < _LONG_WORDS:
            return 0.0
        return self._per_word(_RESIDUES)

    @property
    def broken(self) -> float:
        """Marks of bad scans and wrong encodings per word."""
        text = self.text
        count = sum(text[max(0, m.start() - 1) : m.start()].isalpha() for m in _SIGN.finditer(text))
        count += sum(
            text[max(0, m.start() - 2) : m.start()].islower() for m in _FIGURE.finditer(text)
        )
        if not text.isascii():
            count += len(_LOST.findall(text)) + len(_MOJIBAKE.findall(text))
        return count / max(1, len(self.words))

    @property
    def single_letters(self) -> float:
        """Letters that stand alone per word."""
        return self._per_word(_SINGLE_LETTER) if self.mean_word_length < _SHORT_WORDS else 0.0

    @property
    def without_vowel(self) -> float:
        """Small-letter words of four and more consonants per word."""
        vowels = len(self._ascii) - len(self._ascii.translate(None, _VOWELS))
        if vowels > _FEW_VOWELS * self._letter_count:
            return 0.0
        return self._per_word(_NO_VOWEL)

    @property
    def tags(self) -> float:
        """Markup tags per word."""
        return self._per_word(_TAG) if "<" in self.text else 0.0

    @property
    def compression(self) -> float:
        """How many times smaller zlib makes the text: prose 2 to 3, claims and tables up to 7."""
        raw = self.text[:_REPETITION_CHARACTERS].encode("utf-8", "replace")
        return len(raw) / max(1, len(zlib.compress(raw, 1)))

    @property
    def repeated_lines(self) -> float:
        """Characters in lines that stood there before."""
        lines = _LINE_BREAKS.split(self.text)
        return find_duplicates(lines)[1] / max(1, len(self.text))

    @property
    def repeated_words(self) -> float:
        """Characters in runs of ten words that stood there before."""
        words = self.text[:_REPETITION_CHARACTERS].split()
        return find_all_duplicate(words, 10) / max(1, sum(map(len, words)))
