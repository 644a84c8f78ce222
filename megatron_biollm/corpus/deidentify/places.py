"""Geographic subdivisions smaller than a state: towns, counties, postcodes, rooms.

Countries, states and peoples stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from megatron_biollm.corpus.deidentify.addresses import AddressGrower
from megatron_biollm.corpus.deidentify.lexicon import Lexicon
from megatron_biollm.corpus.deidentify.patterns import chunks, literal
from megatron_biollm.corpus.deidentify.spans import Span
from megatron_biollm.corpus.deidentify.streets import NO_PLACE_NUMBER, word_before
from megatron_biollm.corpus.deidentify.vocabulary import (
    CLINICAL,
    FUNCTION_WORDS,
    NO_RESIDENCE,
    RESIDENCE,
    ROOMS,
    STATES,
    TOWN_STARTS,
)
from megatron_biollm.corpus.deidentify.words import (
    ACRONYM,
    COMMON,
    DEVICE_NOUN,
    NAME,
    PERMITTED,
    TITLE,
    UNKNOWN,
    Coder,
    Token,
    words_before,
)

_ZIP = re.compile(r"[\s,]{1,3}\d{5}(?:-\d{4})?(?![\w-])")
_ZIP_PLUS_4 = re.compile(r"\d{5}-\d{4}(?![\w-])")
_ZIP_CUE = re.compile(
    r"(?:[Zz][Ii][Pp]|[Pp]ostal|POSTAL|[Pp]ost)(?:\s?[Cc][Oo][Dd][Ee])?(?:\s(?:is|of))?"
    r"\s{0,2}[:=]?\s{0,5}(?P<zip>(?=[\w-]{0,5}\d|[A-Z\d]{2,4} \d)[A-Za-z0-9]{2,8}"
    r"(?:-\d{2,4}| (?=\d|[A-Z]{2}\b)[A-Z0-9]{2,4})?)(?![\w.%/-]\w|\w)"
)
_POSTCODE = re.compile(
    r"[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}(?!\w)"
    r"|[ABCEGHJ-NPRSTVXY]\d[ABCEGHJ-NPRSTV-Z] \d[ABCEGHJ-NPRSTV-Z]\d(?!\w)"
)
_NUMBER_BEHIND = re.compile(
    r"(?: \([^\W\d_]{3,12}\))?,?\s{1,2}(?!(?:19|20)\d\d\b)"
    r"(?P<number>\d{4,6}(?:-\d{3,4})?)(?![\w]|[.,]\d)"
)
_TUMOUR_STAGE = re.compile(r"T\d[A-Z] \dM")
_PARTICLE_NEXT = re.compile(
    r" (?:am|an der|an de|im|bei|ob|do|da|de|del|della|di|dos|das|nad|pod|sur|sous|lez|aux|u|na|v"
    r"|los|og|i)(?: (?:la|las|los|el))? [^\W\d_a-z][\w'’-]{1,30}"
)
_LOWER_WORD = re.compile(r"(?<![\w'’-])[a-z]{4,30}(?![\w'’-])")
_LOWER_RESIDENCE = re.compile(r"[a-z]{2,12} (?:in|from|to|at) (?P<place>[a-z]{4,25})\b")
_TOWN_JOINS = (" ", " de ", " nad ", " on the ", "' ")


class PlaceDetector:
    """Towns and counties by list and by what stands before them; postcodes; rooms and beds."""

    def __init__(self, lexicon: Lexicon, coder: Coder) -> None:
        self.lexicon, self.coder = lexicon, coder
        self.grow = AddressGrower(lexicon, coder)

    def __call__(self, text: str) -> list[Span]:
        tokens = self.coder.tokens(text)
        spans = [*_rooms(text), *_postcodes(text)]
        spans += [*self._states(text, tokens), *self._towns(text, tokens)]
        if len(tokens) * 60 < len(text) + 60:
            spans += self._lower_case(text)
        return spans

    def _states(self, text: str, tokens: list[Token]) -> Iterator[Span]:
        """A town before the abbreviation of a state, with or without a postcode behind it."""
        for index, token in enumerate(tokens):
            if token.text not in STATES:
                continue
            first = index
            while first and index - first < 3 and _joins_city(text, *tokens[first - 1 : first + 1]):
                first -= 1
            if first == index:
                continue
            zip_code = _ZIP.match(text, token.end)
            if zip_code:
                yield self.grow(text, tokens[first].start, zip_code.end(), "city_zip")
            elif "," in text[tokens[index - 1].end : token.start]:
                yield from self._town_of_state(tokens[first:index])

    def _town_of_state(self, words: list[Token]) -> Iterator[Span]:
        listed = self.lexicon.places.get(words[0].low, ())
        proper = any(w.code in (UNKNOWN, NAME) for w in words)
        if proper or tuple(w.low for w in words) in listed:
            yield Span(words[0].start, words[-1].end, "location", "city_state", 45)

    def _towns(self, text: str, tokens: list[Token]) -> Iterator[Span]:
        """Names of towns; of those that are also words only what follows "lives in" and so on."""
        for index, token in enumerate(tokens):
            if text[token.start - 1 : token.start] == " ":
                yield from self._residence(text, tokens, index)
            listed = _bare(token) in self.lexicon.places
            if token.code in (UNKNOWN, NAME) or listed:
                yield from self._long_town(text, tokens, index)
            if token.code == PERMITTED or listed:
                yield from _postcode_behind(text, token)
            if token.code != PERMITTED and listed:
                yield from self._listed_town(text, tokens, index)

    def _listed_town(self, text: str, tokens: list[Token], index: int) -> Iterator[Span]:
        token = tokens[index]
        length = self._town_length(text, tokens, index)
        if not length or DEVICE_NOUN.match(text, tokens[index + length - 1].end):
            return
        sure = token.code in (UNKNOWN, NAME) or (token.code == ACRONYM and len(token.low) > 3)
        if length == 1 and not sure and not _cued_town(text, token):
            return
        last = tokens[index + length - 1]
        start = _town_start(text, tokens, index)
        end = last.end - 2 if last.text.endswith(("'s", "’s")) else last.end
        yield Span(start, end, "location", "town", 22)

    def _long_town(self, text: str, tokens: list[Token], index: int) -> Iterator[Span]:
        """Words that join a proper name to a town: "Port Taylorside", "Viana do Castelo"."""
        token = tokens[index]
        start = _town_start(text, tokens, index)
        particle = _PARTICLE_NEXT.match(text, token.end)
        if particle and not text.islower():
            yield Span(start, particle.end(), "location", "town", 9)
        elif start < token.start and token.code in (UNKNOWN, NAME):
            yield Span(start, token.end, "location", "town", 9)

    def _residence(self, text: str, tokens: list[Token], index: int) -> Iterator[Span]:
        """The capitalised words behind "moved to" and its like, unless a country or a state."""
        token = tokens[index]
        if token.low in NO_RESIDENCE or token.low in FUNCTION_WORDS:
            return
        if words_before(text, token.start) not in RESIDENCE:
            return
        last = index
        while last + 1 < len(tokens) and last - index < 3:
            if text[tokens[last].end : tokens[last + 1].start] not in _TOWN_JOINS:
                break
            last += 1
        if text[token.start : tokens[last].end].lower() not in self.lexicon.permitted:
            yield Span(token.start, tokens[last].end, "location", "residence", 23)

    def _town_length(self, text: str, tokens: list[Token], index: int) -> int:
        """Words of the longest place of the list that begins at this word; 0 for none."""
        options = self.lexicon.places.get(_bare(tokens[index]), ())
        following = _bare(tokens[index + 1]) if index + 1 < len(tokens) else ""
        # Hundreds of places begin with "new"; the second word rules nearly all of them out.
        return max(
            (
                len(words)
                for words in options
                if len(words) == 1
                or (words[1].rstrip(".") == following and _matches(text, tokens, index, words))
            ),
            default=0,
        )

    def _lower_case(self, text: str) -> Iterator[Span]:
        """Towns in a text with few capitals."""
        lexicon = self.lexicon
        for match in _LOWER_WORD.finditer(text):
            word = match[0]
            if word in lexicon.words or word in lexicon.safe:
                continue
            if (word,) in lexicon.places.get(word, ()):
                yield Span(*match.span(), "location", "town", 13)
        for match in _LOWER_RESIDENCE.finditer(text):
            cue = tuple(match[0].split()[:2])
            if cue in RESIDENCE and self.coder.code(match["place"]) in (UNKNOWN, NAME):
                yield Span(*match.span("place"), "location", "residence", 23)


def _rooms(text: str) -> Iterator[Span]:
    for start, end in chunks(text):
        if text[max(0, start - 1) : start] not in (" ", "#", "\xa0"):
            continue
        if word_before(text, start) in ROOMS and not NO_PLACE_NUMBER.match(text, end):
            yield Span(start, end, "location", "room", 50)


def _postcodes(text: str) -> Iterator[Span]:
    for match in _ZIP_PLUS_4.finditer(text):
        if not _follows_word(text, match):
            yield Span(*match.span(), "zip", "zip", 72)
    for needle in ("zip", "ZIP", "Zip", "ostal", "OSTAL", "ost code", "ostcode"):
        for match in literal(text, needle, _ZIP_CUE, 1 if needle[0] in "oO" else 0):
            yield Span(*match.span("zip"), "zip", "zip_cue", 72)
    for match in _POSTCODE.finditer(text):
        if not _follows_word(text, match) and not _TUMOUR_STAGE.match(match[0]):
            yield Span(*match.span(), "zip", "postcode", 55)


def _postcode_behind(text: str, token: Token) -> Iterator[Span]:
    """A number behind a country or a town: "Denmark 2100"."""
    number = _NUMBER_BEHIND.match(text, token.end)
    if number and not NO_PLACE_NUMBER.match(text, number.end()) and token.code != COMMON:
        yield Span(*number.span("number"), "zip", "postcode", 30)


def _follows_word(text: str, match: re.Match[str]) -> bool:
    return text[max(0, match.start() - 1) : match.start()].isalnum()


def _bare(token: Token) -> str:
    low = token.low
    return low[:-2] if low.endswith(("'s", "’s")) else low


def _joins_city(text: str, left: Token, right: Token) -> bool:
    between = text[left.end : right.start]
    comma = right.text in STATES and between in (", ", ",")
    plain = left.code != TITLE and left.low not in FUNCTION_WORDS
    return plain and (comma or between in (" ", ". "))


def _town_start(text: str, tokens: list[Token], index: int) -> int:
    """Where the name of a town begins when "New" or "San" stands before it."""
    before = tokens[index - 1] if index else None
    joined = before and text[before.end : tokens[index].start] in (" ", ". ")
    return before.start if before and joined and before.low in TOWN_STARTS else tokens[index].start


def _cued_town(text: str, token: Token) -> bool:
    """A word alone, with a capital, behind "from" or "near"."""
    following = text[token.end : token.end + 2]
    if (following[:1] == " " and following[1:].isupper()) or not token.text.istitle():
        return False
    if token.low in NO_RESIDENCE or token.low in CLINICAL or token.low in FUNCTION_WORDS:
        return False
    return words_before(text, token.start)[-1] in ("from", "near", "in", "to", "love", "visit")


def _matches(text: str, tokens: list[Token], index: int, words: tuple[str, ...]) -> bool:
    """Whether these words stand here side by side; the first is known to."""
    if len(words) == 1:
        return True
    if index + len(words) > len(tokens):
        return False
    found = tokens[index : index + len(words)]
    if any(_bare(t) != w.rstrip(".") for t, w in zip(found[1:], words[1:], strict=True)):
        return False
    gaps = (text[a.end : b.start] for a, b in pairwise(found))
    return all(len(gap) <= 2 and "\n" not in gap for gap in gaps)
