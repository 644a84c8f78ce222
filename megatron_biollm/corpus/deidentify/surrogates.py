"""What stands in the place of an identifier: the same for the same, within one patient.

Every choice is drawn from an HMAC-SHA256 of the value, keyed by a secret and the patient, so no
table of replacements exists that could leak, any process of any machine draws the same, and without
the secret nothing leads back. Dates move by a number of days that is constant for a patient.
"""

from __future__ import annotations

import hmac
import json
import re
from importlib.resources import files

from megatron_biollm.corpus.deidentify.date_shift import shift_date
from megatron_biollm.corpus.deidentify.lexicon import Lexicon
from megatron_biollm.corpus.deidentify.spans import Span
from megatron_biollm.corpus.deidentify.vocabulary import (
    DEGREES,
    FACILITY_WORDS,
    RESTRICTED_ZIP3,
    STREET_WORDS,
    SURROGATE_PARTICLES,
    TITLES,
)

_NAME_WORD = re.compile(r"(?:[OoDdLl]['’])?[^\W\d_]+\d{0,4}")
_WORD_OR_NUMBER = re.compile(r"[^\W\d_][\w'’]*|\d+")
_US_ZIP = re.compile(r"\d{5}(?:-\d{4})?")
_YEAR = re.compile(r"(?:18|19|20)\d{2}")


class SurrogateLists:
    """Names of persons, places and organisations to choose from."""

    def __init__(self) -> None:
        folder = files("megatron_biollm.corpus.deidentify")
        lists = json.loads(folder.joinpath("data", "surrogates.json").read_text(encoding="utf-8"))
        self.lists: dict[str, list[str]] = {name: text.split() for name, text in lists.items()}


class Surrogates:
    """The replacements of one patient.

    Args:
        secret: never written anywhere; at least 16 bytes.
        patient: key of the patient, or of the note where none is known.
        max_shift_days: dates move by 1 to so many days, back or forth.
        dates: "shift", or "year" for the year alone (the strict reading of Safe Harbor).
        reference_year: of the note; a birth more than 89 years before it becomes 90 years.
    """

    def __init__(
        self,
        secret: bytes,
        patient: str,
        lexicon: Lexicon,
        lists: SurrogateLists,
        max_shift_days: int = 365,
        dates: str = "shift",
        reference_year: int | None = None,
    ) -> None:
        self._secret, self._patient = secret, patient
        self.lexicon, self.lists, self.dates = lexicon, lists.lists, dates
        self.reference_year = reference_year
        drawn = self._draw("days", "") % (2 * max_shift_days)
        self.days = drawn - max_shift_days + (drawn >= max_shift_days)

    def replace(self, text: str, span: Span) -> str:
        """What to write instead of the span of this text."""
        value = text[span.start : span.end]
        match span.kind:
            case "name":
                return self._name(value)
            case "date":
                return self._date(text, span)
            case "age":
                return "90+"
            case "zip":
                return self._zip(value)
            case "location":
                return self._location(value, span.rule)
            case "organisation":
                return self._organisation(value)
            case "email" | "url" | "ip":
                return self._net(span.kind, value)
            case "photograph" | "biometric":
                return f"[{span.kind}]"
            case _:
                return self._same_shape(value, letters=span.kind not in ("phone", "fax"))

    def opaque(self, value: str) -> str:
        """A keyed hash, to replace the id of a document: 16 hexadecimal digits."""
        return f"{self._draw('id', value) & (2**64 - 1):016x}"

    def shift(self, date: str) -> str | None:
        """A date of the form YYYY, YYYY-MM or YYYY-MM-DD, moved as those of the text are."""
        if _YEAR.fullmatch(date):
            return date
        if self.dates == "year":
            return date[:4] if _YEAR.match(date) else None
        padded = f"{date}-15" if re.fullmatch(r"\d{4}-\d{2}", date) else date
        moved = shift_date(padded, self.days)
        return moved[: len(date)] if moved else None

    def _draw(self, purpose: str, value: str) -> int:
        message = f"{self._patient}\0{purpose}\0{value}".encode("utf-8", "surrogatepass")
        return int.from_bytes(hmac.digest(self._secret, message, "sha256")[:16], "big")

    def _pick(self, name: str, value: str) -> str:
        """One of a list, never the value itself."""
        options = self.lists[name]
        index = self._draw(name, value) % len(options)
        if options[index].lower() == value:
            index = (index + 1) % len(options)
        return options[index]

    def _name(self, value: str) -> str:
        return _NAME_WORD.sub(lambda match: self._name_word(match[0]), value)

    def _name_word(self, word: str) -> str:
        low = word.lower()
        if low in TITLES or low in DEGREES or low in SURROGATE_PARTICLES:
            return word
        if len(word) == 1:
            return _in_case(word, chr(ord("a") + self._draw("initial", low) % 26))
        low = low.rstrip("0123456789")
        return _in_case(word, self._pick(self._part(low), low))

    def _part(self, low: str) -> str:
        """Which list a name is replaced from; the same for a name wherever it stands."""
        lexicon = self.lexicon
        if low in lexicon.common_first or (low in lexicon.first and low not in lexicon.last):
            return "first_female" if low in lexicon.female else "first_male"
        return "last"

    def _date(self, text: str, span: Span) -> str:
        value = text[span.start : span.end]
        if self.dates == "year":
            year = _YEAR.search(value)
            return year[0] if year else "[date]"
        born = re.search(
            r"(?i)\b(?:dob|d\.o\.b|birth|born)", text[max(0, span.start - 24) : span.start]
        )
        earliest = self.reference_year - 90 if born and self.reference_year else None
        moved = shift_date(value, self.days, self.reference_year or 2001, earliest)
        return moved if moved is not None else "[date]"

    def _zip(self, value: str) -> str:
        if _US_ZIP.fullmatch(value):
            return "00000" if value[:3] in RESTRICTED_ZIP3 else value[:3] + "00"
        return self._same_shape(value)

    def _location(self, value: str, rule: str) -> str:
        if rule in ("town", "town_cue", "city_state", "residence"):
            return _in_case(value, self._pick("cities", value.lower()))
        words = _WORD_OR_NUMBER.sub(lambda match: self._location_word(match[0]), value)
        return words

    def _location_word(self, word: str) -> str:
        low = word.lower()
        if word.isdigit():
            return self._same_shape(word)
        if (
            low in SURROGATE_PARTICLES
            or low in self.lexicon.permitted
            or low in STREET_WORDS
            or len(word) < 3
        ):
            return word
        return _in_case(word, self._pick("streets", low))

    def _organisation(self, value: str) -> str:
        """The words that say what it is stay; the proper name before them changes."""
        words = value.split()
        kept = len(words)
        while kept > 1 and words[kept - 1].strip(".,").lower() in FACILITY_WORDS:
            kept -= 1
        proper = " ".join(words[:kept]).lower()
        new = _in_case(words[0], self._pick("organisations", proper))
        return " ".join([new, *words[kept:]])

    def _net(self, kind: str, value: str) -> str:
        drawn = self._draw(kind, value.lower())
        if kind == "email":
            first = self._pick("first_female", value.lower()).lower()
            return f"{first}.{self._pick('last', value.lower()).lower()}@example.org"
        if kind == "url":
            return f"https://www.example.org/{drawn & 0xFFFFFF:06x}"
        if ":" in value:
            return f"fd00::{drawn & 0xFFFF:x}:{drawn >> 16 & 0xFFFF:x}"
        return f"10.{drawn & 255}.{drawn >> 8 & 255}.{drawn >> 16 & 255}"

    def _same_shape(self, value: str, letters: bool = True) -> str:
        """Other digits and letters in the same places."""
        drawn = self._draw("shape", re.sub(r"[\W_]+", "", value).lower())
        written = []
        for position, char in enumerate(value):
            if position % 24 == 23:
                drawn = self._draw("shape", str(drawn))
            if char.isdigit():
                drawn, digit = divmod(drawn, 10)
                written.append(str(digit))
            elif letters and char.isascii() and char.isalpha():
                drawn, letter = divmod(drawn, 26)
                written.append(_in_case(char, chr(ord("a") + letter)))
            else:
                written.append(char)
        new = "".join(written)
        return new if new != value or not any(c.isdigit() for c in value) else new[::-1]


def _in_case(model: str, word: str) -> str:
    """`word` with the capitals of `model`."""
    if model.isupper() and len(model) > 1:
        return word.upper()
    if model.islower():
        return word.lower()
    return word.upper() if len(word) == 1 else word
