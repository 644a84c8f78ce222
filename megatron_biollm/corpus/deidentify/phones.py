"""Telephone and fax numbers."""

from __future__ import annotations

import re

from megatron_biollm.corpus.deidentify.spans import Span

_EXTENSION = r"(?:\s{0,2},?\s?(?:x|ext\.?|extension)\s{0,2}#?\d{1,6})?"
_NORTH_AMERICA = re.compile(r"\d{3}\)?[-. ]?\s?\d{3}[-. ]\d{4}" + _EXTENSION + r"(?!\w|[.-]\d)")
_COUNTRY = re.compile(r"(?:\+?\b1[-. ]?|\b001[-. ])?\(?\Z")
_INTERNATIONAL = re.compile(r"\+\s?\d{1,4}(?:[ .-]?\(?\d{1,7}\)?){1,6}" + _EXTENSION + r"(?!\w)")
# Groups of two and more digits; which of them are telephone numbers is judged by `_is_phone`.
_GROUPS = re.compile(
    r"\d{2,5}\)?"
    r"(?:[ -]\d{2,8}|\.\d{2,8}(?=\.\d{2}|[.\s]|$)){1,5}" + _EXTENSION + r"(?![\w%/]|-\d|[.,]\d)"
)
_ISO_DATE = re.compile(r"(?:19|20)\d\d-[01]\d-[0-3]\d")
_UNIT = re.compile(
    r"\s{0,2}(?:mg|mcg|ml|cc|g|kg|mm|cm|units?|iu|beats|bpm|lbs?|pounds|to|x|meq)\b", re.I
)
_CUE = re.compile(
    r"tel|phone|call|mobile|cell|page|beeper|contact|reach|number|text|message|voicemail"
    r"|fax|facsimile|answer|dial|office|home|work"
)
_CODE = re.compile(r"(?:code|cpt|icd|drg|ndc|\bpart|catalog|ref)[\w\s#:-]{0,12}\Z")
_FAX = re.compile(r"\b(?:fax|facsimile)\b", re.IGNORECASE)
_NEAR = 40  # characters in which a cue is sought on either side


class PhoneDetector:
    """Telephone and fax numbers, with extensions, of North America and abroad."""

    def __call__(self, text: str) -> list[Span]:
        spans = []
        for match in _NORTH_AMERICA.finditer(text):
            country = _COUNTRY.search(text, max(0, match.start() - 6), match.start())
            start = country.start() if country else match.start()
            if not text[max(0, start - 1) : start].isalnum():
                spans.append(_span(text, start, match.end(), 70))
        if "+" in text:
            spans += [
                _span(text, *m.span(), 71)
                for m in _INTERNATIONAL.finditer(text)
                if sum(map(str.isdigit, m[0])) >= 7
            ]
        for match in _GROUPS.finditer(text):
            if not _ISO_DATE.fullmatch(match[0]) and _is_phone(text, match):
                start = match.start() - (text[match.start() - 1 : match.start()] == "(")
                spans.append(_span(text, start, match.end(), 50))
        return spans


def _is_phone(text: str, match: re.Match[str]) -> bool:
    # Lower case once, because the search of a text in either case takes three times as long.
    before = text[max(0, match.start() - _NEAR) : match.start()].lower()
    if before[-1:].isalnum() or before[-1:] in (".", "/", "+", "$", "-"):
        return False
    if before[-1:] == "," and before[-2:-1].isdigit():
        return False
    digits = sum(map(str.isdigit, match[0]))
    if not 6 <= digits <= 15 or _UNIT.match(text, match.end()):
        return False
    if _CODE.search(before):
        return False
    if _CUE.search(before) or _CUE.search(text[match.end() : match.end() + _NEAR].lower()):
        return True
    return 7 <= digits <= 13 and before[-2:-1] not in (",", ";")


def _span(text: str, start: int, end: int, priority: int) -> Span:
    before = text[max(0, start - 15) : start].split("\n")[-1]
    own_line = text[end : end + 8].split("\n")[0]
    is_fax = _FAX.search(before) or _FAX.search(own_line)
    return Span(start, end, "fax" if is_fax else "phone", "phone", priority)
