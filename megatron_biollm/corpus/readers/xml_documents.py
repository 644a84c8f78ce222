"""Files that hold many XML documents one after another, as patent offices publish them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from megatron_biollm.corpus.readers.chunks import Chunks
from megatron_biollm.corpus.report import FileReport

LONGEST_DOCUMENT = 1 << 29
_READ_BYTES = 1 << 20
# A declaration always begins a document; a document type only where one has been before it.
_BEGIN = re.compile(rb"<\?xml\s|<!DOCTYPE\s")
_LONGEST_BEGIN = 10


def split_documents(stream: BinaryIO, report: FileReport) -> Iterator[bytes]:
    """Yields the bytes of each document, whole or broken, in bounded memory.

    report: takes a document so long that it cannot be one; the rest of the file is left.
    """
    chunks, buffer, searched, more = Chunks(stream), b"", 0, True
    while more:
        new = chunks.read(max(_READ_BYTES, len(buffer)))
        buffer, more = buffer + new, bool(new)
        start = 0
        for match in _BEGIN.finditer(buffer, searched):
            if _begins(buffer, start, match):
                yield from _whole(buffer[start : match.start()])
                start = match.start()
        buffer = buffer[start:]
        searched = max(0, len(buffer) - _LONGEST_BEGIN)
        if len(buffer) > LONGEST_DOCUMENT:
            report.break_off("the end", f"a document does not end within {LONGEST_DOCUMENT} bytes")
            return
    yield from _whole(buffer)


def _begins(buffer: bytes, start: int, match: re.Match[bytes]) -> bool:
    return match[0].startswith(b"<?") or buffer.find(b"</", start, match.start()) >= 0


def _whole(document: bytes) -> Iterator[bytes]:
    document = document.removeprefix(b"\xef\xbb\xbf").strip()
    if document:
        yield document
