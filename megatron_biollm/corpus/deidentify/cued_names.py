"""Names told by what stands around them: a title, a field, a phrase, a degree."""

from __future__ import annotations

import re
from collections.abc import Iterator

from megatron_biollm.corpus.deidentify.lexicon import Lexicon
from megatron_biollm.corpus.deidentify.patterns import positions
from megatron_biollm.corpus.deidentify.spans import Span
from megatron_biollm.corpus.deidentify.vocabulary import (
    AFTER_TITLE_NO_NAME,
    HEADERS,
    INTRODUCTIONS,
)
from megatron_biollm.corpus.deidentify.words import (
    COMMON,
    EITHER,
    INITIAL,
    NAME,
    TITLE,
    UNKNOWN,
    WORD,
    Coder,
)

_FIELD_ENDS = re.compile(r"[\n\r;|>\t]|\s\s")
_HEADER_VALUE = re.compile(
    r"[ \t]{0,4}\n?[ \t]{0,4}(?:(?:Mr|Mrs|Ms|Dr|Prof)\.?\s)?"
    r"(?P<name>[^\W\d_][\w'’-]{0,30}\.?(?:(?:,\s?|[ ])[^\W\d_][\w'’-]{0,30}\.?){0,4})"
    r"(?=\s{0,2}(?:$|[\n\r\t;|(\[<]|\s\s|,|\.\s"
    r"|(?:DOB|MRN|Age|Sex|SSN|Date|Room|Acct|Account|ID|DOS|M\.?D)\b))"
)
_TITLED = re.compile(
    r"(?:[Mm][Rr][Ss]?|[Mm][Ss]|[Dd][Rr][Ss]?|[Pp]rof|[Mm]essrs)\b\.?\s{1,2}"
    r"(?P<name>[^\W\d_][\w'’-]{1,30})"
)
_LONG_TITLED = re.compile(
    r"(?:Doctor|Miss|Mister|Professor|Nurse|Sister|Father|Pastor|Judge|Officer|Uncle|Aunt)\s"
    r"(?P<name>[A-Z][\w'’-]{1,30})"
)
_INTRODUCED = re.compile(
    r"(?:\sis)?[ \t,:?]{1,3}"
    r"(?P<name>[^\W\d_][\w'’-]{1,30}(?:\s(?:[A-Z]\.?\s)?[A-ZÀ-Þ][\w'’-]{1,30})?)"
)
_SURE_OF_NAME = re.compile(r"name\b|names\b|/s/", re.IGNORECASE)
_DEGREE = re.compile(
    r"(?:M\.?\s?D|D\.?O|R\.?N|N\.?P|P\.?A(?:-C)?|Ph\.?D|D\.?D\.?S|D\.?P\.?M|CRNA|LPN|APRN|MSW"
    r"|LCSW|Pharm\.?D)\b"
)
_SIGNED = re.compile(
    r"(?<![\w'’-])(?P<name>(?:[A-Z][\w'’-]{0,30}\.?[ ]){1,3}[A-Z][\w'’-]{1,30}),?[ ]{1,2}\Z"
)


class CuedNames:
    """Names behind "Mrs.", "Attending:", "called" and before "M.D.", listed or not."""

    def __init__(self, lexicon: Lexicon, coder: Coder) -> None:
        self.lexicon, self.coder = lexicon, coder

    def __call__(self, text: str) -> list[Span]:
        return [
            *self._titled(text),
            *self._headers(text),
            *self._introduced(text),
            *self._signed(text),
        ]

    def _titled(self, text: str) -> Iterator[Span]:
        for pattern in (_TITLED, _LONG_TITLED):
            for match in pattern.finditer(text):
                word, low = match["name"], match["name"].lower()
                if text[max(0, match.start() - 1) : match.start()].isalnum():
                    continue
                plain = low in self.lexicon.words and not self.lexicon.is_name(low)
                if low not in AFTER_TITLE_NO_NAME and not (word.islower() and plain):
                    end = _bare_end(text, *match.span("name"))
                    yield Span(match.start("name"), end, "name", "title", 25)

    def _headers(self, text: str) -> Iterator[Span]:
        """The value of a field such as "Attending:" where it looks like a name."""
        for mark in ":=":
            for at in positions(text, mark):
                label = _FIELD_ENDS.split(text[max(0, at - 34) : at])[-1].strip().lower()
                value = _HEADER_VALUE.match(text, at + 1) if label in HEADERS else None
                if value and self._is_header_name(value["name"]):
                    yield Span(*value.span("name"), "name", "header", 28)

    def _is_header_name(self, value: str) -> bool:
        codes = [self.coder.code(w) for w in WORD.findall(value)]
        known = sum(c in (NAME, UNKNOWN, EITHER) for c in codes)
        common = sum(c == COMMON for c in codes)
        if not known or not (value[0].isupper() or value.islower()):
            return False
        if not {NAME, UNKNOWN} & set(codes):
            # "Patient: Ah, yes." in a dialogue, unlike "Pt: GREEN, MAY".
            words = WORD.findall(value)
            return common == 0 and len(words) > 1 and all(w[0].isupper() for w in words)
        if value.islower():
            return all(c in (NAME, EITHER, INITIAL) for c in codes) and NAME in codes
        return common == 0 or ("," in value and common <= 1 and len(codes) <= 4)

    def _introduced(self, text: str) -> Iterator[Span]:
        """What stands behind "name is", "called", "this is"."""
        for phrase in INTRODUCTIONS:
            for at in positions(text, phrase):
                match = _INTRODUCED.match(text, at + len(phrase))
                if match is None or text[max(0, at - 1) : at].isalnum():
                    continue
                if self._is_introduced(match["name"], bool(_SURE_OF_NAME.search(phrase))):
                    end = _bare_end(text, *match.span("name"))
                    yield Span(match.start("name"), end, "name", "introduced", 24)

    def _is_introduced(self, name: str, sure: bool) -> bool:
        code = self.coder.code(WORD.findall(name)[0])
        if name[0].islower():
            return code == NAME or (sure and code == UNKNOWN)
        safe = self.lexicon.is_safe(name.lower()) or code == TITLE
        return (sure and not safe) or code in (NAME, UNKNOWN, EITHER)

    def _signed(self, text: str) -> Iterator[Span]:
        """Names before a degree: "Jane Roe, M.D."."""
        for degree in _DEGREE.finditer(text):
            if text[max(0, degree.start() - 1) : degree.start()] != " ":
                continue
            match = _SIGNED.search(text, max(0, degree.start() - 100), degree.start())
            words = WORD.findall(match["name"]) if match else []
            codes = [self.coder.code(w) for w in words]
            known = {NAME, EITHER, UNKNOWN, INITIAL} & set(codes)
            if match and known and sum(c == COMMON for c in codes) <= 1:
                first = match["name"].index(words[0] if codes[0] != TITLE else words[1])
                yield Span(match.start() + first, match.end("name"), "name", "signed", 26)


def _bare_end(text: str, start: int, end: int) -> int:
    return end - 2 if text[end - 2 : end] in ("'s", "’s", "'S") and end - start > 3 else end
