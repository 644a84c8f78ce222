"""Dates as precise as the source gives them: YYYY, YYYY-MM or YYYY-MM-DD."""

from __future__ import annotations

import re

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_YEAR = re.compile(r"[12]\d{3}", re.ASCII)


def iso_date(year: str | None, month: str | None = None, day: str | None = None) -> str | None:
    """From separate fields; a field that is no such thing ends the date before it.

    Args:
        month: a number or the English name, whole or its first three letters.
    """
    if not year or not _YEAR.fullmatch(year := year.strip()):
        return None
    number = month_number(month or "")
    if number is None:
        return year
    if day and (day := day.strip()).isdecimal() and len(day) < 3 and 1 <= int(day) <= 31:
        return f"{year}-{number:02d}-{int(day):02d}"
    return f"{year}-{number:02d}"


def month_number(month: str) -> int | None:
    """1 to 12, or None."""
    month = month.strip().lower()
    if month.isdecimal() and len(month) < 3:
        return int(month) if 1 <= int(month) <= 12 else None
    return _MONTHS.index(month[:3]) + 1 if month[:3] in _MONTHS else None


def first_date(words: str) -> str | None:
    """The beginning of a range written in words: ``1998 Dec-1999 Jan``, ``2001 Jun 15-21``."""
    parts = re.split(r"[\s/-]+", words.strip())
    return iso_date(*parts[:3])
