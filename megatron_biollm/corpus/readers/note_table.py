"""Notes in tables (CSV) and in JSON objects: which column is what."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, TypeVar

from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.readers.json_records import json_records
from megatron_biollm.corpus.readers.note import is_whole_text, note
from megatron_biollm.corpus.report import FileReport

# The csv module refuses fields over 128 KiB unless told; more than this is an open quote.
LONGEST_FIELD = 1 << 28
Row = TypeVar("Row")


@dataclass(frozen=True)
class Columns:
    """Names of columns in lower case; the first of each tuple that a table has is taken.

    required: all of them mark the table as this one. parts: the text, as (section, column); a
    section "" takes its name from the column `heading`.
    """

    required: frozenset[str]
    parts: tuple[tuple[str, tuple[str, ...]], ...]
    heading: str = ""
    patient: tuple[str, ...] = ()
    identity: tuple[str, ...] = ()
    date: tuple[str, ...] = ()
    licence: str | None = None

    def note(self, row: Mapping[str, Any], position: str) -> Document | None:
        """A row as a note; None without text."""
        number = _first(row, self.identity)
        heading = _first(row, (self.heading,))
        parts = [(name or heading, _first(row, columns)) for name, columns in self.parts]
        return note(
            parts,
            identity=(position.rpartition(", ")[0], number) if number else (position,),
            patient=_first(row, self.patient) or None,
            date=_first(row, self.date),
            licence=self.licence,
        )


MTS_DIALOG = Columns(
    required=frozenset({"section_header", "section_text", "dialogue"}),
    parts=(("", ("section_text",)), ("dialogue", ("dialogue",))),
    heading="section_header",
    identity=("id",),
    licence="CC BY 4.0",
)
MTSAMPLES = Columns(
    required=frozenset({"label", "description", "text"}),
    parts=(("title", ("description",)), ("note", ("text",))),
)
MTSAMPLES_FULL = Columns(
    required=frozenset({"medical_specialty", "sample_name", "transcription"}),
    parts=(("title", ("description",)), ("note", ("transcription",))),
)
ACI_BENCH = Columns(
    required=frozenset({"src", "tgt", "file"}),
    parts=(("note", ("tgt",)), ("dialogue", ("src",))),
    identity=("file",),
    licence="CC BY 4.0",
)
PRESIDIO = Columns(
    required=frozenset({"full_text", "spans", "template_id"}),
    parts=(("note", ("full_text",)),),
    licence="MIT",
)
# For tables of which the user says that they are notes: names in use at hospitals and in MIMIC.
ANY = Columns(
    required=frozenset(),
    parts=(
        ("title", ("title", "description")),
        ("note", ("text", "note_text", "note", "transcription", "report_text", "report",
                  "narrative", "content", "body", "full_text")),
    ),
    patient=("subject_id", "patient_id", "person_id", "patient", "mrn"),
    identity=("note_id", "row_id", "document_id", "id"),
    date=("charttime", "chartdate", "note_date", "date", "timestamp"),
)  # fmt: skip


def read_csv(
    stream: BinaryIO, name: str, report: FileReport, columns: Columns
) -> Iterator[Document]:
    """Yields one note per row that has text.

    Args:
        stream: UTF-8, with or without a byte order mark; fields may hold line breaks.
        report: takes rows of another length than the header, with NUL bytes or not in UTF-8, and
            a file whose quotes never close.
    """
    rows = csv.reader(line.decode("utf-8", "surrogateescape") for line in stream)
    try:
        header = [cell.strip("\ufeff ").lower() for cell in next(long_rows(rows), [])]
        if not _has_text_column(header, columns):
            report.passed_over = f"no column of its header holds notes: {', '.join(header)[:200]}"
            return
        for row in filter(None, long_rows(rows)):
            yield from _row(row, header, f"{name}, line {rows.line_num}", report, columns)
    except csv.Error as error:
        report.break_off(f"{name}, line {rows.line_num}", f"not valid CSV: {error}")


def long_rows(rows: Iterator[Row]) -> Iterator[Row]:
    """With long fields allowed; the limit is the process's, so others have theirs in between."""
    while True:
        before = csv.field_size_limit(LONGEST_FIELD)
        try:
            row = next(rows, None)
        finally:
            csv.field_size_limit(before)
        if row is None:
            return
        yield row


def read_json(
    stream: BinaryIO, name: str, report: FileReport, columns: Columns
) -> Iterator[Document]:
    """Yields one note per object (a list, {"data": [...]}, JSON lines) that has text."""
    for position, record in json_records(stream, name, report, ("data",)):
        row = {key.lower(): value for key, value in record.items()}
        if not _has_text_column(list(row), columns):
            report.fault(position, "none of its keys holds a note")
        else:
            yield from _note(row, position, report, columns)


def _row(
    row: list[str], header: list[str], position: str, report: FileReport, columns: Columns
) -> Iterator[Document]:
    if len(row) != len(header):
        report.fault(position, f"{len(row)} cells under a header of {len(header)}")
    elif not all(map(is_whole_text, row)):
        report.fault(position, "not UTF-8, or NUL bytes in it")
    else:
        yield from _note(dict(zip(header, row, strict=True)), position, report, columns)


def _note(
    row: Mapping[str, Any], position: str, report: FileReport, columns: Columns
) -> Iterator[Document]:
    if not all(is_whole_text(value) for value in row.values() if isinstance(value, str)):
        report.fault(position, "NUL characters in it")
        return
    document = columns.note(row, position)
    if document is None or not any(s.name != "title" for s in document.sections):
        report.drop("no_text")
    else:
        yield document


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    values = (row.get(name) for name in names)
    return next(
        (str(v).strip() for v in values if isinstance(v, (str, int)) and str(v).strip()), ""
    )


def _has_text_column(header: list[str], columns: Columns) -> bool:
    return any(name in header for part, names in columns.parts if part != "title" for name in names)


def csv_matches(columns: Columns) -> Callable[[bytes, str], bool]:
    """Whether the first line names exactly these columns, or these among others."""
    return partial(_csv_header_has, columns=columns)


def json_matches(columns: Columns) -> Callable[[bytes, str], bool]:
    """Whether the head holds all of these keys."""
    return partial(_json_head_has, columns=columns)


def _csv_header_has(head: bytes, name: str, columns: Columns) -> bool:
    first = head.partition(b"\n")[0].decode("utf-8-sig", "replace")
    return columns.required <= {cell.strip(' \r"').lower() for cell in first.split(",")}


def _json_head_has(head: bytes, name: str, columns: Columns) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[") and all(
        f'"{key}"'.encode() in head for key in columns.required
    )
