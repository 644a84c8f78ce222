"""JSONL: one JSON object per line, with the text under "text"."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.readers.format import Format
from megatron_biollm.corpus.report import FileReport


def read_jsonl(stream: BinaryIO, name: str, report: FileReport) -> Iterator[Document]:
    """Yields one document per line.

    "id", "source", "licence" (or "license") and "date" are kept where a record has them; a
    "title" is put before a text that does not begin with it. Every other key is left behind.

    Args:
        stream: lines of UTF-8, already unpacked.
        name: file name, which with the line number makes the id of a record without one.
        report: takes each line that is not UTF-8, not JSON or without a text, by its number.
    """
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            document = _document(json.loads(_decode(line)), f"{name}#{number}")
        except ValueError as error:
            report.fault(f"line {number}", _reason(error))
            continue
        if document is None:
            report.drop("no_text")
        else:
            yield document


def _decode(line: bytes) -> str:
    return line.removeprefix(b"\xef\xbb\xbf").decode("utf-8")


def _document(record: object, fallback_id: str) -> Document | None:
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise ValueError('not an object with a string under "text"')
    text, title = record["text"], record.get("title")
    if not text.strip():
        return None
    if isinstance(title, str) and title.strip() and not text.lstrip().startswith(title.strip()):
        text = f"{title.strip()}\n\n{text}"
    # JSON may escape half of a surrogate pair, which no UTF-8 file and no tokenizer can hold.
    text.encode("utf-8")
    return Document(
        text=text,
        id=_string(record.get("id")) or fallback_id,
        source=_string(record.get("source")) or "jsonl",
        licence=_string(record.get("licence", record.get("license"))),
        date=_string(record.get("date")),
    )


def _string(value: object) -> str | None:
    return None if value is None or isinstance(value, (dict, list)) else str(value)


def _reason(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: byte 0x{error.object[error.start]:02x} at column {error.start + 1}"
    if isinstance(error, UnicodeEncodeError):
        return "its text holds half of a surrogate pair, which is no character"
    return f"not valid JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error)


def _matches(head: bytes, name: str) -> bool:
    return name.lower().endswith((".jsonl", ".ndjson"))


FORMATS = (Format("JSONL", "text", _matches, read_jsonl),)
