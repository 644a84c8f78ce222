"""The records of a large JSON file one by one, in bounded memory.

Own code, since what parses JSON as a stream (ijson) builds every value in Python and ends at the
first broken byte. Here a scan finds only where a record begins and ends; the record itself is
parsed by orjson, and a broken one between whole ones costs no other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import orjson

from megatron_biollm.corpus.readers.chunks import Chunks
from megatron_biollm.corpus.report import FileReport

# What is longer than this has brackets that never close, or is nothing a model can read.
LONGEST_RECORD = 1 << 29
_READ_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"

# Up to the next bracket, past whole strings. Possessive, so it never steps back.
_TO_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+[{}\[\]]', re.DOTALL)
_KEY_OF_LIST = re.compile(rb'"(\w+)"\s*:\s*\[\Z')
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
# {"FullStudiesResponse": {"FullStudies": [...]}}
_DEEPEST_WRAPPER = 2
_BETWEEN_RECORDS = b", \t\r\n"


def json_records(
    stream: BinaryIO, name: str, report: FileReport, wrappers: tuple[str, ...] = ()
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (position, object) for each record of a JSON file.

    Records are the objects that stand alone, follow one another, or are elements of a list; and
    the elements of the list under one of the keys `wrappers` of an object which is itself no
    record, as in {"studies": [...], "nextPageToken": "..."}. In a .jsonl or .ndjson file each
    line is a record.

    Args:
        stream: UTF-8, with or without a byte order mark.
        name: the file's name.
        report: takes records that are not JSON objects in UTF-8, and a file that ends too early.
    """
    lines = name.lower().endswith((".jsonl", ".ndjson"))
    pieces = stream if lines else _Splitter(stream, wrappers, report.break_off).pieces()
    for number, raw in enumerate(pieces, start=1):
        if not raw.strip():
            continue
        position = f"{name}, {'line' if lines else 'record'} {number}"
        try:
            record = orjson.loads(raw.removeprefix(_BOM))
        except orjson.JSONDecodeError as error:
            report.fault(position, f"not valid JSON: {error}")
            continue
        if not isinstance(record, dict):
            report.fault(position, "not a JSON object")
        elif _NUL.search(raw):
            report.fault(position, "a NUL character in it")
        else:
            yield position, record


class _Splitter:
    """Cuts a stream where records begin and end, by brackets outside of strings.

    depth: brackets open. holders: for the outermost of them, which are no part of a record,
    whether records lie directly inside (a list) or not (an object around such a list).
    start: where in the buffer the record begins whose end is looked for.
    """

    def __init__(
        self, stream: BinaryIO, wrappers: tuple[str, ...], end: Callable[[str, str], None]
    ):
        self.stream = Chunks(stream)
        self.wrappers = {wrapper.encode() for wrapper in wrappers}
        self.break_off = end
        self.buffer = self.stream.read(_READ_BYTES).removeprefix(_BOM)
        self.at = self.depth = 0
        self.holders: list[bool] = []
        self.start: int | None = None

    def pieces(self) -> Iterator[bytes]:
        """The bytes of each record, and whatever stands between records and is none."""
        while True:
            self._skip_inner()
            match = _TO_BRACKET.match(self.buffer, self.at)
            if match is None and not self._more():
                break
            if match is not None:
                yield from self._between(match[0])
                self.at = match.end()
                if match[0][-1:] in b"{[":
                    self._opened(match[0])
                else:
                    yield from self._closed()
        if self.depth:
            self.break_off("the end", "the file ends too early: brackets stay open")
        else:
            yield from self._between(self.buffer[self.at :] + b"]")

    def _more(self) -> bool:
        """Lets go of what is done and reads as much again as is held; False where none follows."""
        done = self.at if self.start is None else self.start
        if len(self.buffer) - done > LONGEST_RECORD:
            self.break_off("the end", f"a record does not end within {LONGEST_RECORD} bytes")
            self.depth, self.buffer, self.at = 0, b"", 0
            return False
        new = self.stream.read(max(_READ_BYTES, len(self.buffer) - done))
        self.buffer = self.buffer[done:] + new
        self.at -= done
        self.start = None if self.start is None else 0
        return bool(new)

    def _skip_inner(self) -> None:
        """Past all brackets but those that may begin or end records; most time is spent here."""
        floor = max(len(self.holders), _DEEPEST_WRAPPER) + 1
        if self.start is None or self.depth <= floor:
            return
        next_bracket, depth, end = _TO_BRACKET.scanner(self.buffer, self.at).match, self.depth, 0
        while depth > floor and (match := next_bracket()):
            end = match.end()
            depth += 1 if self.buffer[end - 1] in b"{[" else -1
        self.depth, self.at = depth, end or self.at

    @property
    def _among_records(self) -> bool:
        return self.depth == len(self.holders) and (not self.holders or self.holders[-1])

    def _between(self, text: bytes) -> Iterator[bytes]:
        if self._among_records and (other := text[:-1].strip(_BETWEEN_RECORDS)):
            yield other

    def _opened(self, text: bytes) -> None:
        is_list = text.endswith(b"[")
        if self._among_records:
            if is_list:
                self.holders.append(True)
            else:
                self.start = self.at - 1
        elif is_list and self._wraps(text):
            self.holders += [False] * (self.depth - len(self.holders)) + [True]
            self.start = None
        self.depth += 1

    def _wraps(self, text: bytes) -> bool:
        key = _KEY_OF_LIST.search(text) if self.wrappers else None
        return key is not None and key[1] in self.wrappers and self.depth <= _DEEPEST_WRAPPER

    def _closed(self) -> Iterator[bytes]:
        if not self.depth:
            yield b"]"
            return
        self.depth -= 1
        if self.depth < len(self.holders):
            self.holders.pop()
        elif self.depth == len(self.holders) and self.start is not None:
            yield self.buffer[self.start : self.at]
            self.start = None
