"""What a server says it has: HTML folder listings, and names that may become file names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
# Apache writes 2026-01-15 14:05, nginx 15-Jan-2026 14:05.
_DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?|\d\d-[A-Z][a-z]{2}-\d{4} \d\d:\d\d")
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)([KMGT]?)\b")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Entry:
    """One file of a listing.

    size: bytes, rounded as the listing rounds unless exact; None where it is not told.
    modified: the date as the listing writes it.
    """

    name: str
    size: int | None = None
    exact: bool = False
    modified: str | None = None


@dataclass(frozen=True)
class Listing:
    """Entries with plain names, and the links that were refused because theirs are not."""

    entries: list[Entry]
    refused: list[str]


def read_listing(html: str) -> Listing:
    """The files of an Apache or nginx folder listing; folders and sort orders are left aside."""
    parser = _Links()
    parser.feed(html)
    entries: dict[str, Entry] = {}
    refused = []
    for href, text in parser.links:
        name = unquote(href).removeprefix("./")
        if is_navigation(href):
            continue
        if is_plain_name(name):
            entries[name] = _entry(name, text)
        else:
            refused.append(href)
    return Listing(list(entries.values()), refused)


def is_plain_name(name: str) -> bool:
    """Whether a name from outside can be a file's name: no folder, no hidden file, no surprises."""
    return _PLAIN_NAME.fullmatch(name) is not None and ".." not in name


def is_navigation(href: str) -> bool:
    """Whether a link leads to a folder or to another sort order, not to a file."""
    return not urlsplit(href).path.rpartition("/")[2]


def match_any(names: Iterable[str], pattern: re.Pattern) -> list[str]:
    """The names whose last part fits a pattern: of refused links, those that pose as files."""
    return [name for name in names if pattern.fullmatch(re.split(r"[/\\]", unquote(name))[-1])]


def _entry(name: str, text: str) -> Entry:
    date = _DATE.search(text)
    if not date:
        return Entry(name)
    size = _SIZE.match(text, date.end())
    if not size:
        return Entry(name, modified=date[0])
    count = int(float(size[1]) * _UNITS[size[2]])
    return Entry(name, count, exact=not size[2], modified=date[0])


class _Links(HTMLParser):
    """Every link with the text that follows its label, up to the next link."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[list[str]] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if tag == "a" and href:
            self.links.append([href, ""])
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "a"

    def handle_data(self, data: str) -> None:
        if self.links and not self.inside:
            self.links[-1][1] += data
