"""Dates and the ages over 89: where they stand, and what a date says.

Years alone, weekdays, times of day and decades ("the 1990s") are no identifiers and stay. A month
and a day without a year ("3/4") count only where a word before them says that a date is meant;
"4/5 strength", "120/80" and "2/3 tablets" do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

from megatron_biollm.corpus.deidentify.spans import Span

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
# "may" and "mar" in lower case are words.
MONTH = (
    r"(?P<month>(?i:jan(?:uary)?|feb(?:ruary)?|apr(?:il)?|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?|march)|May|MAY|Mar|MAR)\b\.?"
)
_WEEKDAY = r"(?:(?P<weekday>(?i:" + "|".join(WEEKDAYS) + r"))\s?,?\s(?:the\s)?)?"
_DAY = r"(?P<day>3[01]|[12]\d|0?[1-9])(?P<ordinal>st|nd|rd|th|ST|ND|RD|TH)?"
_YEAR = r"(?P<year>(?:18|19|20)\d{2}|'\d{2})"
_TIME = (
    r"(?:[T ]{1,2}(?:at\s)?[0-2]?\d:?[0-5]\d(?::[0-5]\d(?:\.\d{1,6})?)?"
    r"(?:Z|\s?[AaPp]\.?[Mm]\.?|[+-]\d{2}:?\d{2})?)?"
)
_NUMBER_BEFORE = r"(?<![\w/.-])"
_NUMBER_AFTER = r"(?![\w/]|[.-]\d)"

PATTERNS: tuple[re.Pattern[str], ...] = tuple(
    re.compile(pattern)
    for pattern in (
        _NUMBER_BEFORE
        + r"(?P<year>(?:18|19|20)\d{2})(?P<sep>[-/.])(?P<m>1[0-2]|0?[1-9])(?P=sep)"
        + r"(?P<day>3[01]|[12]\d|0?[1-9])"
        + r"(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?(?:Z|[+-]\d{2}:?\d{2})?)?"
        + r"(?![\w]|[/.-]\d)",
        r"(?<![\w.-])(?<!\d/)(?P<a>\d{1,2})(?P<sep>[-/])(?P<b>\d{1,2})(?P=sep)"
        r"(?P<year>(?:18|19|20)\d{2}|\d{2})(?![\w/]|-\d{3}|\.\d)",
        _NUMBER_BEFORE
        + r"(?P<a>\d{1,2})(?P<sep>\.)(?P<b>\d{1,2})\.(?P<year>(?:19|20)\d{2})"
        + _NUMBER_AFTER,
        _WEEKDAY
        + r"\b"
        + MONTH
        + r"\s{0,2}(?:the\s)?"
        + _DAY
        + r"(?:\s?(?:-|–|to|through|and)\s?(?P<day2>3[01]|[12]\d|0?[1-9])(?:st|nd|rd|th)?)?"
        + r"(?:(?:\s?,\s?|\s{1,2}(?:of\s)?|-)"
        + _YEAR
        + r")?(?![\w/%]|[.-]\d)",
        _WEEKDAY
        + _NUMBER_BEFORE
        + _DAY
        + r"(?:\s(?:day\s)?of\s|[ -]|(?<=\d)(?=[A-Z]))"
        + MONTH
        + r"(?:(?:\s?,\s?|\s|-)(?P<year>(?:18|19|20)\d{2}|\d{2}(?=[^\w:/.%-]|$)))?(?!\w)",
        r"\b" + MONTH + r"(?:\s?,\s?|\s(?:of\s)?|-|/)" + _YEAR + r"(?!\w)",
        _NUMBER_BEFORE
        + r"(?P<m>1[0-2]|0?[1-9])(?P<sep>[/-])(?P<year>(?:19|20)\d{2})"
        + _NUMBER_AFTER,
        r"(?<![\w.,-])(?P<year>19\d{2}|20[0-4]\d)(?P<m>0[1-9]|1[0-2])(?P<day>0[1-9]|[12]\d|3[01])"
        r"(?:[0-2]\d[0-5]\d(?:[0-5]\d)?)?(?:[+-]\d{4})?(?![\w]|[.,]\d)",
    )
)
MONTH_DAY = re.compile(
    r"(?<![\w/.-])(?P<m>1[0-2]|0?[1-9])(?P<sep>/)(?P<day>3[01]|[12]\d|0?[1-9])(?![\w/%]|\.\d|-\d{3})"
)
_DATE_CUE = re.compile(
    r"(?:\b(?:on|since|dated?|from|until|till|through|thru|seen|admitted|admit|discharged?|dos|dob"
    r"|labs?|started?|due|between|before|after|starting|effective|as of|beginning|appointment"
    r"|surgery|visit|week of|cxr|ekg|echo|mri|ct|culture|drawn|done|noted|d/c'?d)\s?[:(]?\s?"
    r"|(?:[/\d]\s?(?:-|–|to|and|through)\s?)|(?:^|\n)\s{0,4})\Z",
    re.IGNORECASE,
)
_LINE_START = re.compile(r"(?:^|\n)\s{0,4}\Z")
_NO_DATE_AFTER = re.compile(
    r"\s?(?:strength|tabs?\b|tablets?|pills?|cups?|of\b|dose|mg|ml|cc|in\b|inch|pain|motor|muscle"
    r"|systolic|diastolic|murmur|positive|pulses?|bilaterally|throughout|teaspoon|tsp|oz|upper"
    r"|lower|proximal|distal|hip|knee|grip|with\b|and symmetric|\+)",
    re.IGNORECASE,
)
_MONTH_ALONE = re.compile(
    r"\b(?:in|since|last|this|next|until|by|during|of|from|early|late|mid|through)[\s-]"
    r"(?:early |late |mid[ -]?)?(?:the month of )?"
    r"(?P<month>January|February|March|April|May|June|July|August|September|October|November"
    r"|December)\b(?!\s\d|['’])(?=[\s,.;:)]|$)"
)
_OLD = re.compile(
    r"(?<![\w.,/-])(?P<age>9\d|1[0-3]\d)(?=(?:[\s-]{0,2}(?:years?|yrs?\.?)[\s-]{1,2}(?:old|of\sage)"
    r"|[\s-]{0,2}(?:y/o|y\.?o\.?|yo|yr/o)(?!\w)|[\s-]?(?:M|F)\s(?:with|who|presents|here|s/p)"
    r"|-year\b|\s?y\.?\s?o\.?\s?[mf]\b))",
    re.IGNORECASE,
)
_AGED = re.compile(
    r"\b(?:aged?|turned|turning|age of|patient is|he is|she is|he's|she's)\s{0,2}[:=]?\s{0,2}"
    r"(?P<age>9\d|1[0-3]\d)(?![\w/%]|\.\d|\s?(?:%|kg|lb|pounds|cm|bpm|mm|degrees|percent|on room))",
    re.IGNORECASE,
)
_SPELLED = re.compile(
    r"\b(?P<age>(?:ninety(?:[ -](?:one|two|three|four|five|six|seven|eight|nine))?"
    r"|(?:one|a) hundred(?: and)?(?:[ -](?:one|two|three|four|five|six|seven|eight|nine|ten))?))"
    r"(?=[\s-]{1,2}years?[\s-]{1,2}(?:old|of age))",
    re.IGNORECASE,
)
_TWO_DIGIT_PIVOT = 35  # '36 is 1936, '35 is 2035


_NUMERIC = re.compile(r"\d{1,4}[-/.]\d{1,4}")
_COMPACT = re.compile(r"(?:19|20)\d{6}")
_HUNDRED = re.compile(r"[91]\d{1,2}(?!\d|[.,/]\d)")
_ABBREVIATIONS = tuple(
    form
    for month in MONTHS
    for form in (month[:3], month[:3].upper(), month[:3].lower())
    if form not in ("may", "mar")
)
_DAY_BEFORE = re.compile(
    r"(?:(?i:" + "|".join(WEEKDAYS) + r"),?\s(?:the\s)?)?"
    r"(?<![\w/.-])\d{1,2}(?:st|nd|rd|th|ST|ND|RD|TH)?(?:\s(?:day\s)?of\s|[ -])?\Z"
)
_WEEKDAY_BEFORE = re.compile(r"(?i:" + "|".join(WEEKDAYS) + r")\s?,?\s(?:the\s)?\Z")
_NUMERIC_PATTERNS = (PATTERNS[0], PATTERNS[1], PATTERNS[2], PATTERNS[6])


class DateDetector:
    """All elements of dates but the year alone; ages over 89, in figures and in words."""

    def __call__(self, text: str) -> list[Span]:
        spans = [*_numeric(text), *_named(text), *_ages(text)]
        for match in _COMPACT.finditer(text):
            spans += _dates(text, match.start(), (PATTERNS[7],))
        return spans


def _dates(text: str, start: int, patterns: tuple[re.Pattern[str], ...]) -> Iterator[Span]:
    """The date that begins here in one of these forms, the first that fits."""
    for pattern in patterns:
        match = pattern.match(text, start)
        if match and read_date(match) is not None and not _is_other(text, match):
            yield Span(*match.span(), "date", "date", 85)
            return


def _numeric(text: str) -> Iterator[Span]:
    for match in _NUMERIC.finditer(text):
        found = list(_dates(text, match.start(), _NUMERIC_PATTERNS))
        yield from found or _month_day(text, match.start())


def _named(text: str) -> Iterator[Span]:
    """Dates with the name of a month: each place of a name is looked at from both sides."""
    for at in sorted({p for form in _ABBREVIATIONS for p in _places(text, form)}):
        if text[at - 1 : at].isalpha():
            continue
        day = _DAY_BEFORE.search(text, max(0, at - 32), at)
        weekday = _WEEKDAY_BEFORE.search(text, max(0, at - 18), at)
        yield from _dates(text, weekday.start() if weekday else at, (PATTERNS[3], PATTERNS[5]))
        if day:
            yield from _dates(text, day.start(), (PATTERNS[4],))
        alone = _MONTH_ALONE.search(text, max(0, at - 28), at + 14)
        if alone and alone.start("month") == at:
            yield Span(*alone.span("month"), "date", "month", 30)


def _places(text: str, form: str) -> Iterator[int]:
    at = text.find(form)
    while at >= 0:
        yield at
        at = text.find(form, at + 1)


def _ages(text: str) -> Iterator[Span]:
    for match in _HUNDRED.finditer(text):
        start = match.start()
        old = _OLD.match(text, start)
        aged = None if old else _AGED.search(text, max(0, start - 16), start + 16)
        if old or (aged and aged.start("age") == start):
            yield Span(start, (old or aged).end("age"), "age", "age", 85)
    for word in ("inety", "INETY", "undred", "UNDRED"):
        for at in _places(text, word):
            spelled = _SPELLED.search(text, max(0, at - 8), at + 40)
            if spelled:
                yield Span(*spelled.span("age"), "age", "age", 85)


def _is_other(text: str, match: re.Match[str]) -> bool:
    """A month and a number that is a dose, or no year: "Dec 5 mg"."""
    groups = match.groupdict()
    if groups.get("year") or not groups.get("month"):
        return False
    return bool(_NO_DATE_AFTER.match(text, match.end()) and not groups.get("ordinal"))


def _month_day(text: str, start: int) -> Iterator[Span]:
    """A month and a day alone, where the words around say that it is a date."""
    match = MONTH_DAY.match(text, start)
    if match is None or _NO_DATE_AFTER.match(text, match.end()):
        return
    before = text[max(0, start - 24) : start]
    if _LINE_START.search(before):
        following = text[match.end() : match.end() + 1]
        if following not in (":", "-", " ") or (following == " " and not _dated_line(text, match)):
            return
    if _DATE_CUE.search(before):
        yield Span(*match.span(), "date", "month_day", 35)


def _dated_line(text: str, match: re.Match[str]) -> bool:
    """A line that begins with a date goes on with a capital: "3/4 Seen in clinic"."""
    return text[match.end() + 1 : match.end() + 2].isupper()


def read_date(match: re.Match[str]) -> tuple[int | None, int, int | None] | None:
    """Year, month, day of a match, None where it does not say; None if it is no date at all."""
    groups = match.groupdict()
    year = _year(groups.get("year"))
    if groups.get("a"):
        first, second = int(groups["a"]), int(groups["b"])
        month, day = (first, second) if first <= 12 else (second, first)
    else:
        month = int(groups["m"]) if groups.get("m") else _month_number(groups["month"])
        day = int(groups["day"]) if groups.get("day") else None
    if not 1 <= month <= 12:
        return None
    try:
        date(year or 2000, month, day or 1)
    except ValueError:
        return None
    return year, month, day


def _year(text: str | None) -> int | None:
    if not text:
        return None
    digits = text.lstrip("'")
    if len(digits) == 4:
        return int(digits)
    return int(digits) + (2000 if int(digits) <= _TWO_DIGIT_PIVOT else 1900)


def _month_number(name: str) -> int:
    return next(i for i, full in enumerate(MONTHS, 1) if full.lower().startswith(name.lower()[:3]))
