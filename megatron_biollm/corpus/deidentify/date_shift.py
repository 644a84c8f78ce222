"""A date moved by some days and written again in its own form."""

from __future__ import annotations

import re
from datetime import date, timedelta

from megatron_biollm.corpus.deidentify.dates import (
    MONTH,
    MONTH_DAY,
    MONTHS,
    PATTERNS,
    WEEKDAYS,
    read_date,
)

_BARE_MONTH = re.compile(MONTH)


def shift_date(
    text: str, days: int, default_year: int = 2001, earliest_year: int | None = None
) -> str | None:
    """The same date, in the same form, that many days later; None if `text` holds no date.

    Args:
        text: what `DateDetector` found.
        default_year: taken for dates without a year, to know the length of February.
        earliest_year: no year before it is written: a birth that tells an age over 89.
    """
    for pattern in (*PATTERNS, MONTH_DAY, _BARE_MONTH):
        match = pattern.match(text)
        parts = read_date(match) if match else None
        if parts is None:
            continue
        year, month, day = parts
        # Without a day, the middle of the month stands for it.
        base = date(year or default_year, month, day or 15)
        moved = base + timedelta(days=days)
        if earliest_year is not None and moved.year < earliest_year:
            moved = moved.replace(year=earliest_year, day=min(moved.day, 28))
        return _rewrite(match, moved)
    return None


def _rewrite(match: re.Match[str], moved: date) -> str:
    """The text of the match with each part of the date replaced in its own form."""
    groups = match.groupdict()
    new: dict[str, str] = {"year": f"{moved.year:04d}", "m": str(moved.month)}
    new["month"], new["day"] = MONTHS[moved.month - 1], str(moved.day)
    new["weekday"] = WEEKDAYS[moved.weekday()]
    new["ordinal"] = _ordinal(moved.day)
    if groups.get("a"):
        month_first = int(groups["a"]) <= 12
        new["a"], new["b"] = (new["m"], new["day"]) if month_first else (new["day"], new["m"])
    if groups.get("day2"):
        apart = int(groups["day2"]) - int(groups["day"])
        new["day2"] = str((moved + timedelta(days=apart)).day)
    text, offset = match[0], match.start()
    spots = [(match.span(k), groups[k], new[k]) for k in new if groups.get(k)]
    for (start, end), old, value in sorted(spots, reverse=True):
        text = text[: start - offset] + _in_form(old, value) + text[end - offset :]
    return text


def _in_form(old: str, value: str) -> str:
    """`value` written as `old` is: zeros, two-digit years, abbreviations, capitals."""
    if old.lstrip("'").isdigit():
        if len(old.lstrip("'")) == 2 and len(value) == 4:
            return old[:-2] + value[2:]
        return value.zfill(len(old)) if old.startswith("0") or len(old) == 4 else value
    if value.isalpha() and len(old) <= 4 and len(value) > 2:
        value = value[:3]
    if old.isupper():
        return value.upper()
    return value.lower() if old.islower() else value


def _ordinal(day: int) -> str:
    if 11 <= day <= 13:
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
