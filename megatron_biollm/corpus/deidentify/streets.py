"""Addresses: a number with a street, a suite, a box, a town with its state and postcode."""

from __future__ import annotations

import re
from collections.abc import Iterator

from megatron_biollm.corpus.deidentify.addresses import AddressGrower
from megatron_biollm.corpus.deidentify.lexicon import Lexicon
from megatron_biollm.corpus.deidentify.patterns import chunks, literal, positions
from megatron_biollm.corpus.deidentify.spans import Span
from megatron_biollm.corpus.deidentify.vocabulary import (
    FOREIGN_STREETS,
    FUNCTION_WORDS,
    HOUSE_WORDS,
    SETTLEMENTS,
    SHIPS,
    STREET_ENDINGS,
    STREETS,
    UNITS,
)
from megatron_biollm.corpus.deidentify.words import (
    ACRONYM,
    COMMON,
    DEVICE_NOUN,
    EITHER,
    NAME,
    UNKNOWN,
    WORD,
    Coder,
    Token,
)

_HOUSE_NUMBER = re.compile(
    r"(?<![\w.,/#-])\d{1,6}[A-Za-z]?(?:[-/]\d{1,5})?[ \t]{1,2}(?:[\w'’.-]{1,30}[ \t]{1,2}){0,4}\Z"
)
_UNIT = re.compile(
    r"(?:(?<!\w)|(?<==20))(?:flat|studio|p\.?\s?o\.?\s?box|post\s?box|post\soffice\sbox|psc|cmr|box|apt"
    r"|apartment|suite|ste|unit)\.?[\s#]{1,3}\Z",
    re.IGNORECASE,
)
_MILITARY = re.compile(r"(?:APO|FPO|DPO|apo|fpo|dpo)\s(?:AA|AE|AP|aa|ae|ap)\s\d{5}(?:-\d{4})?")
_CORNER = re.compile(
    r"corner\sof\s(?P<a>[^\n,;]{3,60}?)\sand\s(?P<b>[^\n,;.?!]{3,60}?)"
    r"(?=[\n,.;?!]|\s(?:after|at|in|on|before|is|was)\s|$)"
)
_CORNER_NUMBER = re.compile(r"(?<!\w)(?P<number>\d{1,6}) (?:the )?\Z")
_FOREIGN_REST = re.compile(
    r"(?:[ ](?:delle|della|dei|del|des|du|de|les|la|le|dos|do|das|da|di)(?=[ ]))*"
    r"(?:[ ][ld]['’]|[ ])(?P<word>[^\W\d_][\w'’.-]{1,30})"
)
# These begin names of streets, and are words of notes too.
_LOOSE_STREETS = frozenset(("via", "avenue", "plaza", "boulevard", "corso", "largo"))
_COMMA_NUMBER = re.compile(
    r"(?: [^\W\d_a-z][\w'’.-]{0,30}){0,3},? (?:[Nn]r\.? )?\d{1,4}(?!\w|[./]\d)"
)
_SMALL_WORDS = re.compile(
    r"(?P<words>(?: [^\W\d_A-Z]{1,10}\.?){1,2}) \d{1,4}[a-z]?(?:/\d{1,4})?(?!\w)"
)
_NUMBER_AFTER = re.compile(
    r"(?P<point>\.?) (?P<number>\d{1,6})(?P<rest>(?:[/-]\d{1,3}[a-z]?)?)[A-Za-z]?(?![\w/.]\w|\w)"
)
NO_PLACE_NUMBER = re.compile(
    r"[%/$]|[.,]\d|-\d?[a-z]|\s?(?:mg|mcg|ml|cc|kg|cm|mm|meq|mmol|year|yo|y/o|degrees?|units?|fr\b"
    r"|french|days?|weeks?|months?|hours?|minutes?|beats|bpm|lbs?|pounds|times|x\b|gauge|grams?"
    r"|joules|watts|contrast|tablets?|tabs?|capsules?|puffs?|drops?)",
    re.IGNORECASE,
)
_YEAR = re.compile(r"(?:19\d|20[0-4])\d(?!\d)")
_LOWER_STREET = re.compile(
    r"\d{1,6} (?P<name>[^\W\d_][\w'’-]{1,25}(?: [^\W\d_][\w'’-]{1,25})?) "
    r"(?:street|avenue|ave|blvd|boulevard|road|rd|st|lane|drive)\b"
)
# In a text without capitals only these tell a street.
_LOWER_STREETS = frozenset(
    ("street", "st", "avenue", "ave", "road", "rd", "boulevard", "blvd", "drive", "lane", "court",
     "crescent", "close", "terrace", "place", "square", "highway", "parkway", "trail", "grove")
)  # fmt: skip
_LOWER_BESIDE = re.compile(r" (?P<word>[^\W\d_]{4,30})(?![\w'’-])")
_LOWER_BEFORE = re.compile(r"(?<![\w'’-])(?P<word>[^\W\d_]{4,30}) \Z")


class StreetDetector:
    """Finds the anchors of addresses and lets each grow."""

    def __init__(self, lexicon: Lexicon, coder: Coder) -> None:
        self.lexicon, self.coder = lexicon, coder
        self.grow = AddressGrower(lexicon, coder)

    def __call__(self, text: str) -> list[Span]:
        tokens = self.coder.tokens(text)
        spans = [*self._units(text), *self._corners(text), *self._foreign(text)]
        spans += [*self._streets(text, tokens), *self._numbered_names(text, tokens)]
        if len(tokens) * 60 < len(text) + 60:
            spans += self._lower_case(text)
        return spans

    def _units(self, text: str) -> Iterator[Span]:
        """Numbers behind "Apt." or "PO Box"; post of the armed forces."""
        for start, end in chunks(text):
            if text[start - 1 : start] in (" ", "#") and _is_unit(word_before(text, start)):
                unit = _UNIT.search(text, max(0, start - 18), start)
                if unit:
                    yield self.grow(text, unit.start(), end, "unit")
        for needle in ("PO ", "po "):
            for match in literal(text, needle, _MILITARY, 1):
                yield self.grow(text, *match.span(), "military")

    def _corners(self, text: str) -> Iterator[Span]:
        for match in literal(text, "corner of", _CORNER):
            number = _CORNER_NUMBER.search(text, max(0, match.start() - 12), match.start())
            if number:
                yield Span(*number.span("number"), "location", "corner", 55)
            for part in "ab":
                codes = {self.coder.code(w) for w in WORD.findall(match[part])}
                if codes & {UNKNOWN, NAME} or any(c.isdigit() for c in match[part]):
                    yield Span(*match.span(part), "location", "corner", 55)

    def _streets(self, text: str, tokens: list[Token]) -> Iterator[Span]:
        """Words for a street with a house number or a proper name before them."""
        for index, token in enumerate(tokens):
            after = tokens[index + 1] if index + 1 < len(tokens) else None
            if token.text in SHIPS and after and after.start == token.end + 1:
                yield self.grow(text, token.start, after.end, "ship")
            if token.low.rstrip(".") not in STREETS:
                continue
            number = _HOUSE_NUMBER.search(text, max(0, token.start - 70), token.start)
            lower = token.low in _LOWER_STREETS and text.islower()
            if (
                number
                and self._is_street(number[0], lower)
                and not DEVICE_NOUN.match(text, token.end)
            ):
                yield self.grow(text, number.start(), token.end, "street")
            elif index and self._is_named(text, tokens[index - 1], token):
                yield self.grow(text, tokens[index - 1].start, token.end, "named_street")

    def _is_street(self, number: str, lower: bool) -> bool:
        """No word of a sentence between the number and the street."""
        words = WORD.findall(number)
        if lower:
            plain = not any(w in FUNCTION_WORDS or w in ("block", "blocks", "miles") for w in words)
            return plain and len(words) < 3
        return not any(w.islower() and w in self.lexicon.words for w in words)

    def _is_named(self, text: str, name: Token, street: Token) -> bool:
        beside = 1 <= street.start - name.end <= 2 and "\n" not in text[name.end : street.start]
        alike = street.text.isupper() == name.text.isupper()
        if not beside or not alike or text[street.end : street.end + 1] == ":":
            return False
        within = text[max(0, name.start - 2) : name.start - 1].islower() and name.text.istitle()
        if street.low in SETTLEMENTS and name.code == COMMON:
            return within and name.low not in FUNCTION_WORDS
        either = name.code == EITHER and (within or name.low in self.lexicon.first)
        return either or name.code in (UNKNOWN, NAME)

    def _foreign(self, text: str) -> Iterator[Span]:
        """The word for the street comes first: "Rue de la Paix", "Via Garibaldi 5"."""
        lower = text.lower()
        for word in sorted(FOREIGN_STREETS):
            if word not in lower:
                continue
            for form in (word, word.title()):
                for at in positions(text, form):
                    yield from self._foreign_street(text, at, at + len(form))
        for at in positions(text, "C/ "):
            yield from self._foreign_street(text, at, at + 2)

    def _foreign_street(self, text: str, start: int, end: int) -> Iterator[Span]:
        if text[max(0, start - 1) : start].isalnum() or text[end : end + 1] not in (" ", "."):
            return
        word = text[start:end]
        # "ul" and "al" begin a street only as "ul." and "al.".
        if (
            len(word) < 4
            and text[end] != "."
            and word.lower()
            not in (
                "via",
                "rue",
                "rua",
                "c/",
                "av",
            )
        ):
            return
        rest = _FOREIGN_REST.match(text, end + (text[end] == "."))
        if rest is None or not self._is_foreign(text, start, word, rest):
            return
        number = _COMMA_NUMBER.match(text, rest.end())
        yield self.grow(text, start, number.end() if number else rest.end(), "street")

    def _is_foreign(self, text: str, start: int, word: str, rest: re.Match[str]) -> bool:
        before, after = text[max(0, start - 2) : start], text[rest.end() + 1 : rest.end() + 2]
        numbered = before[:1].isdigit() or after.isdigit()
        capital = rest["word"][0].isupper()
        code = self.coder.code(rest["word"])
        proper = code in (UNKNOWN, NAME) or (code == EITHER and capital)
        titled = word[0].isupper() and capital and code != ACRONYM
        if numbered:
            return titled or proper or word.lower() not in _LOOSE_STREETS
        return proper and capital and word != "via"

    def _numbered_names(self, text: str, tokens: list[Token]) -> Iterator[Span]:
        """A proper name beside a bare number: "Puruntie 82", "50541 Mlýnská", "Imre u. 12"."""
        for token in tokens:
            if token.code not in (UNKNOWN, NAME) or DEVICE_NOUN.match(text, token.end):
                continue
            start = self._number_before(text, token)
            small = _SMALL_WORDS.match(text, token.end)
            number = _NUMBER_AFTER.match(text, token.end)
            if start is not None:
                yield self.grow(text, start, token.end, "number_name")
            elif small and self._are_street_words(small["words"].split()):
                yield self.grow(text, token.start, small.end(), "name_number")
            elif number and self._is_house_number(text, token, number):
                yield self.grow(text, token.start, number.end(), "name_number")

    def _number_before(self, text: str, token: Token) -> int | None:
        """Where the house number before a name begins."""
        before = text[max(0, token.start - 8) : token.start]
        if before[-1:] != " " or not before[-2:-1].isdigit():
            return None
        number = _HOUSE_NUMBER.search(text, max(0, token.start - 9), token.start)
        long = number and len(number[0].strip()) > 1 and not _YEAR.match(number[0])
        return number.start() if number and long else None

    def _is_house_number(self, text: str, token: Token, number: re.Match[str]) -> bool:
        if NO_PLACE_NUMBER.match(text, number.end()) or _YEAR.fullmatch(number["number"]):
            return False
        street = token.low.rstrip(".").endswith(STREET_ENDINGS)
        return street or not (number["rest"] or number["point"])

    def _are_street_words(self, words: list[str]) -> bool:
        """Small words between the name of a street and the number: "u.", "gate", "tee"."""
        return all(
            w in HOUSE_WORDS
            or w == "u."
            or (w not in self.lexicon.words and self.coder.code(w) == UNKNOWN)
            for w in words
        )

    def _lower_case(self, text: str) -> Iterator[Span]:
        """Addresses in a text with few capitals."""
        for match in _LOWER_STREET.finditer(text):
            words = WORD.findall(match["name"])
            if not any(w in FUNCTION_WORDS or w in ("blocks", "block", "miles") for w in words):
                yield self.grow(text, *match.span(), "street")
        for start, end in chunks(text):
            if end - start > 6 or not text[start:end].isdigit():
                continue
            after = _LOWER_BESIDE.match(text, end)
            before = _LOWER_BEFORE.search(text, max(0, start - 32), start)
            if after and self.coder.code(after["word"]) == UNKNOWN:
                yield self.grow(text, start, after.end(), "lower_case")
            if before and self.coder.code(before["word"]) == UNKNOWN:
                yield self.grow(text, before.start(), end, "lower_case")


def _is_unit(word: str) -> bool:
    return word in UNITS or word.removeprefix("=20") in UNITS


def word_before(text: str, start: int) -> str:
    """The word before a number, in lower case, without "no." and "#"."""
    words = text[max(0, start - 18) : start].rstrip(" #.").lower().split()
    return words[-1].removesuffix(".") if words else ""
