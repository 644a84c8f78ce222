"""Plain text: one document per file, or one per block between blank lines."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.readers.format import Format
from megatron_biollm.corpus.report import FileReport


def read_plain_text(
    stream: BinaryIO, name: str, report: FileReport, blank_line_splits: bool = False
) -> Iterator[Document]:
    """Yields the file as one document, or its blocks of lines between blank lines.

    Args:
        stream: UTF-8 text; line ends of any system become ``\\n``.
        name: file name, the document's id (with ``#`` and the number of a block).
        report: takes each line that is not UTF-8, by its number; the other lines are kept.
        blank_line_splits: one document per block instead of one per file.
    """
    lines = _lines(stream, report)
    blocks = _blocks(lines) if blank_line_splits else ["".join(lines)]
    empty = True
    for number, block in enumerate(blocks, start=1):
        if block.strip():
            empty = False
            identifier = f"{name}#{number}" if blank_line_splits else name
            yield Document(text=block.strip("\n"), id=identifier, source="text")
    if empty:
        report.drop("no_text")


def _lines(stream: BinaryIO, report: FileReport) -> Iterator[str]:
    for number, line in enumerate(stream, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            byte = f"byte 0x{line[error.start]:02x} at column {error.start + 1}"
            report.fault(f"line {number}", f"not UTF-8: {byte}; the line is left out")
            continue
        yield text.replace("\r\n", "\n").replace("\r", "\n")


def _blocks(lines: Iterator[str]) -> Iterator[str]:
    block: list[str] = []
    for line in lines:
        if line.strip():
            block.append(line)
        elif block:
            yield "".join(block)
            block = []
    if block:
        yield "".join(block)


def _matches(head: bytes, name: str) -> bool:
    return name.lower().endswith(".txt") and ".pubtator" not in name.lower()


FORMATS = (Format("plain text", "text", _matches, read_plain_text),)
# One document per block of lines, for who says so.
BLOCKS = Format("plain text", "text", _matches, partial(read_plain_text, blank_line_splits=True))
