"""Identifiers that have a shape or stand behind their name: numbers, addresses on the net, codes.

Every scan begins with a character or a literal that is rare in prose and every repetition is
bounded, so that the time is linear in the length of the text whatever the text is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from megatron_biollm.corpus.deidentify.spans import Span
from megatron_biollm.corpus.deidentify.vocabulary import LABEL_LAST_WORDS, NEED_NO_MARK

# What precedes a number says what it is.
_LABELS = {
    "medical_record": r"m\.?r\.?n\.?|med(?:ical)?\s+rec(?:ord)?|chart|patient\s+id(?:entifier)?"
    r"|pt\s+id|hospital|unit|record|record\s+locator",
    "health_plan": r"policy|member|subscriber|beneficiary|insurance|medicare|medicaid|hicn|mbi"
    r"|group|health\s+plan|plan",
    "account": r"account|acct|a/c|card|credit\s+card|cc|iban|routing|invoice|billing",
    "licence": r"licen[cs]e|dea|npi|upin|certificate|cert|passport|permit|registration",
    "vehicle": r"vin|(?:licen[cs]e\s+)?plate|vehicle(?:\s+identification)?|tag",
    "device": r"serial|s/n|sn|lot|device|udi|model|implant|pacemaker",
    "biometric": r"finger\s?print|voice\s?print|retina(?:l)?\s+scan|iris\s+scan|dna\s+profile"
    r"|face\s+template",
    "ssn": r"ssn?|ss|social\s+security|soc\s+sec",
    "fax": r"fax|facsimile",
    "phone": r"tel|telephone|phone|pager|beeper|ext|extension|mobile|cell",
    "other_id": r"accession|case|specimen|encounter|visit|order|requisition|job|dictation|doc"
    r"|document|confirmation|reference|ref|control|study|subject|id|identifier|csn|fin"
    r"|employee|badge|student|voucher|ticket|trans(?:cription)?|claim|authorization|referral",
}
_MARK = (
    r"\s{0,2}(?:\#|:|=|(?:no|num|number|nr|id|code|hash|identifier|template)(?![a-z])\.?|is"
    r"|ending\s+in|it's)"
)
_LABELLED = re.compile(
    r"(?<![A-Za-z])(?:"
    + "|".join(f"(?P<{kind}>{words})" for kind, words in _LABELS.items())
    + rf")(?P<marks>(?:{_MARK}){{0,3}})[\s:#=.(-]{{0,5}}\Z",
    re.IGNORECASE,
)
_MORE_DIGITS = re.compile(r"(?:[ ./-]{1,2}(?=\d)[\dA-Za-z-]{2,12}(?!\w|[./]\d)){1,5}")
_CHUNK = re.compile(r"\d[\w-]*")
_LEFT = re.compile(r"[A-Za-z0-9-]{1,24}\Z")

_CODES: tuple[tuple[str, int, re.Pattern[str]], ...] = (
    ("ssn", 90, re.compile(r"\d{3}-\d{2}-\d{4}")),
    ("vehicle", 62, re.compile(r"(?=\d*[A-Z])[A-HJ-NPR-Z0-9]{17}")),
    ("account", 61, re.compile(r"[A-Za-z]{2}\d{2}[A-Za-z]{4}\d{7,22}")),
    ("other_id", 61, re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")),
    ("other_id", 38, re.compile(r"\d{2,6}(?:-\d{2,6}){2,4}")),
    ("other_id", 60, re.compile(r"[A-Z]{1,4}-?\d{2,4}-\d{3,8}")),
    ("other_id", 60, re.compile(r"[A-Z]{1,5}-?\d{6,18}[A-Z]{0,3}|\d{2,}[A-Z]{1,3}\d{4,16}")),
    ("photograph", 60, re.compile(r"(?:IMG|DSC|DCIM|PHOTO|DSCN)[_-]?\d{3,12}")),
)
_PUBLIC_ID = re.compile(r"(?:NCT|PMC|ISRCTN|PMID|NDA|ANDA|BLA)\d+")
# Codes of a terminology are nobody's number.
_CODE_SYSTEM = re.compile(r"SNOMED|RxNorm|RXNORM|LOINC|ICD-|NDC|CPT|CVX|UNII|HCPCS|OID")
_HIDDEN_SSN = re.compile(r"[Xx*]{3}-[Xx*]{2}-\d{4}(?!\w)")

_TLD = (
    r"(?:com|org|net|edu|gov|mil|info|io|co|us|uk|ca|de|fr|nl|se|es|it|ch|at|be|pl|cz|dk|fi|no|pt"
    r"|hu|eu|au|nz|in|jp|cn|br|mx|biz|health|care|me|app|dev)"
)
_URL_REST = re.compile(r"[^\s<>\"']{1,2000}")
_URL_SCHEME = re.compile(r"(?i:https?|s?ftp|file)\Z")
_DOMAIN_END = re.compile(rf"\.{_TLD}(?![\w-]|\.\w)(?:/[^\s<>\"']{{0,500}})?")
_DOMAIN_LEFT = re.compile(r"(?<![\w@.-])[A-Za-z0-9-]{2,40}(?:\.[A-Za-z0-9-]{2,40}){0,3}\Z")
_IPV4 = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]{0,40}")
_HEX_LEFT = re.compile(r"(?<![\w:])[0-9A-Fa-f]{1,4}\Z")
_IPV6 = re.compile(
    r"(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}|(?:[0-9a-f]{1,4}:){1,6}(?::[0-9a-f]{1,4}){1,6}", re.I
)
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", re.I)
_DATA_URI = re.compile(
    r"(?:image|application|video|audio)/[\w.+-]{1,40};base64,[A-Za-z0-9+/=\s]{1,50000000}"
)
_IMG = re.compile(r"<(?:img|IMG)\b[^>]{0,4000}>")
_PICTURE_END = re.compile(
    r"\.(?:jpe?g|png|gif|bmp|tiff?|heic|dcm|dicom|mp4|mov|JPE?G|PNG|TIFF?|DCM)\b"
)
_FILE_LEFT = re.compile(r"[\w()-]{1,80}\Z")
_LONG_WORD = 120
_BASE64 = re.compile(r"[A-Za-z0-9+/]{100,}={0,2}")
_EMAIL_LEFT = re.compile(r"[A-Za-z0-9À-ÿ][\w.+%'-]{0,63}\Z")
_EMAIL_RIGHT = re.compile(r"@\s?[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,5}")


class PatternDetector:
    """Finds e-mail addresses, URLs, IP addresses, pictures and labelled or long numbers."""

    def __call__(self, text: str) -> list[Span]:
        spans = [*_emails(text), *_urls(text), *_addresses(text), *_pictures(text)]
        for start, end in chunks(text):
            spans += _judge_number(text, start, end)
        return spans + [Span(*m.span(), "ssn", "shape", 90) for m in _hidden_ssns(text)]


@lru_cache(maxsize=1)
def chunks(text: str) -> list[tuple[int, int]]:
    """Words that hold a digit: where they begin and end, letters before the digit included.

    Three detectors ask for those of the same text, one after the other.
    """
    last, found = 0, []
    for match in _CHUNK.finditer(text):
        start, end = match.span()
        if start > last and (text[start - 1].isalnum() or text[start - 1] == "-"):
            left = _LEFT.search(text, max(last, start - 24), start)
            start = left.start() if left else start
        last = end
        found.append((start, end))
    return found


def _judge_number(text: str, start: int, end: int) -> Iterator[Span]:
    value = text[start:end].strip("-")
    start += text[start:end].index(value) if value else 0
    end = start + len(value)
    if len(value) > 2 or (len(value) == 2 and _MORE_DIGITS.match(text, end)):
        yield from _labelled(text, start, end)
    if len(value) < 7 or _PUBLIC_ID.fullmatch(value):
        return
    if value.isdigit():
        before, after = text[max(0, start - 1) : start], text[end : end + 2]
        if (
            before not in (".", ",", "$")
            and not (after[:1] in (".", ",") and after[1:].isdigit())
            and not _CODE_SYSTEM.search(text, max(0, start - 16), end + 16)
        ):
            yield Span(
                start, end, "account" if 12 <= len(value) <= 19 else "other_id", "long_number", 40
            )
        return
    for kind, priority, shape in _CODES:
        if shape.fullmatch(value) and sum(map(str.isdigit, value)) > 3:
            yield Span(start, end, kind, "shape", priority)
            return


def _labelled(text: str, start: int, end: int) -> Iterator[Span]:
    before = text[max(0, start - 44) : start]
    words = before.rstrip(" \t\r\n:#=.(-").lower().rsplit(None, 1)
    if not words or (
        words[-1].split("(")[-1].split(",")[-1].split("/")[-1] not in LABEL_LAST_WORDS
        and words[-1] not in LABEL_LAST_WORDS
    ):
        return
    label = _LABELLED.search(before)
    if label is None:
        return
    kind = next(k for k in _LABELS if label[k])
    more = None if kind in ("phone", "fax") else _MORE_DIGITS.match(text, end)
    end = more.end() if more else end
    digits = sum(map(str.isdigit, text[start:end]))
    marked = bool(label["marks"]) or any(c in ":#=" for c in before[label.end(kind) :])
    if not marked and (label[kind].lower() not in NEED_NO_MARK or digits < 4):
        return
    # "Group 2" and "case 3" are not numbers of anybody.
    least = 3 if kind in ("medical_record", "ssn", "biometric", "device", "phone", "fax") else 4
    # "Extension 50/60" is the movement of a joint.
    joint = label[kind].lower() == "extension" and "/" in text[start : end + 1]
    if digits >= least and not joint:
        yield Span(start, end, kind, "label", 45 if kind in ("phone", "fax") else 80)


def _emails(text: str) -> Iterator[Span]:
    for at in positions(text, "@"):
        left = _EMAIL_LEFT.search(text, max(0, at - 64), at)
        right = _EMAIL_RIGHT.match(text, at)
        if left and right:
            yield Span(left.start(), right.end(), "email", "shape", 95)


def _urls(text: str) -> Iterator[Span]:
    for at in positions(text, "://"):
        scheme = _URL_SCHEME.search(text, max(0, at - 5), at)
        rest = _URL_REST.match(text, at + 3)
        if scheme and rest:
            yield Span(scheme.start(), rest.end() - _closing(rest[0]), "url", "shape", 92)
    for at in positions(text, "www."):
        rest = _URL_REST.match(text, at)
        if rest and len(rest[0]) > 6:
            yield Span(at, rest.end() - _closing(rest[0]), "url", "shape", 91)
    for match in _DOMAIN_END.finditer(text):
        left = _DOMAIN_LEFT.search(text, max(0, match.start() - 80), match.start())
        if left:
            yield Span(left.start(), match.end() - _closing(match[0]), "url", "shape", 90)


def _closing(url: str) -> int:
    """How many characters at the end belong to the sentence, not to the URL."""
    return len(url) - len(url.rstrip(".,;:!?)]}"))


def _addresses(text: str) -> Iterator[Span]:
    for match in _IPV4.finditer(text):
        before = text[match.start() - 1 : match.start()] if match.start() else ""
        if (
            not before.isalnum()
            and before != "."
            and all(int(part) < 256 for part in match[0].split("."))
        ):
            yield Span(*match.span(), "ip", "shape", 90)
    for match in _COLONS.finditer(text):
        left = _HEX_LEFT.search(text, max(0, match.start() - 4), match.start())
        start = left.start() if left else match.start()
        value = text[start : match.end()].rstrip(":")
        for kind, shape in (("ip", _IPV6), ("device", _MAC)):
            if shape.fullmatch(value):
                yield Span(start, start + len(value), kind, "shape", 90)


def _hidden_ssns(text: str) -> Iterator[re.Match[str]]:
    for masked in ("xxx-", "XXX-", "***-"):
        yield from literal(text, masked, _HIDDEN_SSN)


def _pictures(text: str) -> Iterator[Span]:
    for match in literal(text, "data:", _DATA_URI, -5):
        yield Span(match.start() - 5, match.end(), "photograph", "shape", 96)
    for needle in ("<img", "<IMG"):
        yield from (Span(*m.span(), "photograph", "shape", 96) for m in literal(text, needle, _IMG))
    for match in _PICTURE_END.finditer(text):
        left = _FILE_LEFT.search(text, max(0, match.start() - 80), match.start())
        if left:
            yield Span(left.start(), match.end(), "photograph", "shape", 93)
    # Only a text with a very long word can hold encoded data.
    if max(map(len, text.split()), default=0) >= _LONG_WORD:
        yield from (Span(*m.span(), "biometric", "shape", 50) for m in _BASE64.finditer(text))


def literal(
    text: str, needle: str, pattern: re.Pattern[str], back: int = 0
) -> Iterator[re.Match[str]]:
    """Matches that begin so many characters before each place of a literal."""
    last = -1
    for at in positions(text, needle):
        match = pattern.match(text, max(0, at - back)) if at >= last else None
        if match:
            last = match.end()
            yield match


def positions(text: str, needle: str) -> Iterator[int]:
    """Where a literal stands in a text."""
    at = text.find(needle)
    while at >= 0:
        yield at
        at = text.find(needle, at + 1)
