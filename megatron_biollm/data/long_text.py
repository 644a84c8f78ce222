"""JSON lines of many MiB: their long strings are decoded a piece at a time.

A parser holds such a line three times over: as bytes, in its own buffer, and as text of two or
four bytes a character. Here the long strings are found by a regular expression and cut out, the
parser sees the rest, and the strings stay in the line.
"""

import re
import secrets
from collections.abc import Iterator
from typing import Any

import orjson

LONG_BYTES = 1 << 22
_PIECE_BYTES = 1 << 20
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
# Between two letters; g to z ends neither an escape sequence of its own nor a \uXXXX one.
_CUT = re.compile(rb"(?<=[a-z][g-z]) (?=[a-z])")


class LongText:
    """A long string inside a JSON line. start, end: of its characters, without the quotes."""

    def __init__(self, line: bytes | bytearray, start: int, end: int):
        self.line, self.start, self.end = line, start, end

    def pieces(self) -> Iterator[str]:
        """The text, cut before spaces between letters.

        Raises:
            ValueError: it is not JSON.
        """
        start = self.start
        while cut := _CUT.search(self.line, start + _PIECE_BYTES, self.end):
            yield _decode(self.line[start : cut.start()])
            start = cut.start()
        yield _decode(self.line[start : self.end])

    def __str__(self) -> str:
        return _decode(self.line[self.start : self.end])


def loads_long(line: bytes | bytearray) -> Any:
    """`orjson.loads` of a line, with a LongText for each long string that is a value.

    Raises:
        ValueError: the line is not JSON.
    """
    found: dict[str, LongText] = {}
    rest, position, mark = bytearray(), 0, secrets.token_hex(8)
    for match in _STRING.finditer(line):
        start, end = match.start() + 1, match.end() - 1
        if end - start >= LONG_BYTES:
            name = f"{mark}{len(found)}"
            found[name] = LongText(line, start, end)
            rest += memoryview(line)[position:start]
            rest += name.encode()
            position = end
    rest += memoryview(line)[position:]
    value = orjson.loads(rest)
    for text in found.values():
        for _ in text.pieces():
            pass
    if isinstance(value, dict):
        return {key: _put_back(part, found) for key, part in value.items()}
    return value


def _put_back(value: Any, found: dict[str, LongText]) -> Any:
    if isinstance(value, list):
        return [_put_back(part, found) for part in value]
    return found.get(value, value) if isinstance(value, str) else value


def _decode(characters: bytes | bytearray) -> str:
    return orjson.loads(b'"%b"' % characters)
