"""Employers and facilities: what stands before "Hospital" or "Inc", or behind "works at"."""

from __future__ import annotations

import re
from collections.abc import Iterator

from megatron_biollm.corpus.deidentify.lexicon import Lexicon
from megatron_biollm.corpus.deidentify.spans import Span
from megatron_biollm.corpus.deidentify.vocabulary import (
    CLINICAL,
    CLINICAL_ENDS,
    EMPLOYMENT,
    FACILITIES,
    FACILITY_NO_NAME,
    FUNCTION_WORDS,
    KINDS_OF_FACILITY,
    WEAK_FACILITIES,
)
from megatron_biollm.corpus.deidentify.words import (
    ACRONYM,
    COMMON,
    EITHER,
    INITIAL,
    NAME,
    PERMITTED,
    TITLE,
    UNKNOWN,
    Coder,
    Token,
    words_before,
)

_JOINS = (" ", " of ", " and ", " & ", ", ", "-", " the ", " of the ", ". ")
# What a company does, behind a phrase that begins a sentence.
_GOES_ON = re.compile(
    r"['’]s [a-z]|\n[^\w\n]{0,8}\d{2,6} [^\W_a-z]|(?:['’]s)? (?:is|was|has|had|announced|announces"
    r"|said|says|will|hired|sells|makes|made|bought|offers|employs|plans|and its|based"
    r"|songwriter|ceo|CEO|chief|founder|employee|store|stock|office)\b"
)
# Behind a single word: the end of a part of the sentence.
_ENDS = re.compile(r"[.,;!?\n]|['’]s|$| (?:as|and|in|for|is|was|to|last|where|when|since)\b")
_SINGLE_CUES = frozenset(("at", "from", "by", "for", "contact", "join", "joined"))
_LONGEST = 6  # words of a name before "Hospital"


class OrganisationDetector:
    """Employers (which Safe Harbor names) and hospitals, clinics, schools."""

    def __init__(self, lexicon: Lexicon, coder: Coder) -> None:
        self.lexicon, self.coder = lexicon, coder

    def __call__(self, text: str) -> list[Span]:
        tokens = self.coder.tokens(text)
        spans = []
        for index, token in enumerate(tokens):
            if _bare(token) in FACILITIES:
                spans += self._facility(text, tokens, index)
            if text[max(0, token.start - 1) : token.start] == " " and token.code != PERMITTED:
                spans += self._employer(text, tokens, index)
            spans += self._phrase(text, tokens, index)
        return spans

    def _facility(self, text: str, tokens: list[Token], index: int) -> Iterator[Span]:
        """The capitalised words that end in a word for a facility or a company."""
        first = index
        while (
            first and index - first < _LONGEST and _joined(text, tokens[first - 1], tokens[first])
        ):
            first -= 1
        while first < index and tokens[first].low in FACILITY_NO_NAME:
            first += 1
        words = tokens[first:index]
        proper = [w for w in words if w.code in (NAME, UNKNOWN, ACRONYM, EITHER)]
        plain = all(w.low in KINDS_OF_FACILITY or w.low in FACILITIES for w in words)
        if not words or (plain and len(words) < 2) or _other_case(words[0], tokens[index]):
            return
        if not proper and (
            _bare(tokens[index]) in WEAK_FACILITIES or _begins_sentence(text, words[0])
        ):
            return
        yield Span(words[0].start, tokens[index].end, "organisation", "facility", 46)

    def _employer(self, text: str, tokens: list[Token], index: int) -> Iterator[Span]:
        """The capitalised words behind "works at" and its like."""
        cue = words_before(text, tokens[index].start)
        if cue not in EMPLOYMENT:
            return
        last = index
        while (
            last + 1 < len(tokens)
            and last - index < 4
            and _joined(text, tokens[last], tokens[last + 1])
        ):
            last += 1
        codes = {t.code for t in tokens[index : last + 1]}
        if not codes <= {PERMITTED, TITLE, INITIAL} and not (
            cue[0] == "is" and codes <= {COMMON, PERMITTED}
        ):
            yield Span(tokens[index].start, tokens[last].end, "organisation", "employer", 21)

    def _phrase(self, text: str, tokens: list[Token], index: int) -> Iterator[Span]:
        """Common words with capitals within a sentence, none of them clinical: "Credit Karma"."""
        first = tokens[index]
        if not self._is_phrase_word(first) or (index and _follows(text, tokens[index - 1], first)):
            return
        last = index
        while (
            last + 1 < len(tokens)
            and last - index < 4
            and _joined(text, tokens[last], tokens[last + 1])
        ):
            if not self._is_phrase_word(tokens[last + 1]):
                return
            last += 1
        within = text[max(0, first.start - 2) : max(0, first.start - 1)].islower()
        above = text[tokens[last].end - 2 : tokens[last].end] in ("'s", "’s")
        goes_on = _GOES_ON.match(text, tokens[last].end - (2 if above else 0))
        if not within and not (goes_on and (last > index or goes_on[0][0] == "\n")):
            return
        ends = _ENDS.match(text, tokens[last].end) is not None
        cued = words_before(text, first.start)[-1] in _SINGLE_CUES and first.code == COMMON
        alone = cued and ends
        alone = alone or (not within and goes_on)
        if last > index or alone:
            yield Span(first.start, tokens[last].end, "organisation", "phrase", 11)

    def _is_phrase_word(self, token: Token) -> bool:
        if token.code not in (COMMON, EITHER):
            return False
        low = _bare(token)
        if low in FUNCTION_WORDS or low not in self.lexicon.words:
            return False
        clinical = low in CLINICAL or self.lexicon.is_safe(low) or low.endswith(CLINICAL_ENDS)
        bare = token.text.removesuffix("'s").removesuffix("’s")
        return bare.istitle() and bare.isalpha() and not clinical


def _follows(text: str, left: Token, right: Token) -> bool:
    """In the middle of words with capitals, such as a heading."""
    return left.text.istitle() and text[left.end : right.start] == " "


def _bare(token: Token) -> str:
    return token.low.replace("’", "'").removesuffix("'s")


def _joined(text: str, left: Token, right: Token) -> bool:
    if right.start - left.end > 8 or left.code == TITLE:
        return False
    return text[left.end : right.start] in _JOINS


def _other_case(first: Token, last: Token) -> bool:
    """One in capitals, the other not; "LLC" says nothing of the words before it."""
    return first.text.isupper() != last.text.isupper() and _bare(last) not in (
        "llc",
        "inc",
        "ltd",
        "co",
    )


def _begins_sentence(text: str, token: Token) -> bool:
    before = text[max(0, token.start - 2) : token.start]
    return len(before) < 2 or before[-1] != " " or not (before[0].islower() or before[0].isdigit())
