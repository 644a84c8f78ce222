"""Clinical notes: C-CDA, FHIR R4, published sets of notes, and, told so, tables and plain text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import BinaryIO

from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.readers import ccda, fhir
from megatron_biollm.corpus.readers.format import Format
from megatron_biollm.corpus.readers.note import SOURCE, digest
from megatron_biollm.corpus.readers.note_table import (
    ACI_BENCH,
    ANY,
    MTS_DIALOG,
    MTSAMPLES,
    MTSAMPLES_FULL,
    PRESIDIO,
    Columns,
    csv_matches,
    json_matches,
    read_csv,
    read_json,
)
from megatron_biollm.corpus.readers.plain_text import read_plain_text
from megatron_biollm.corpus.report import FileReport


def read_text_note(stream: BinaryIO, name: str, report: FileReport) -> Iterator[Document]:
    """Yields the whole file as one note."""
    for document in read_plain_text(stream, name, report):
        yield replace(document, id=f"note-{digest('note', name)}", source=SOURCE)


def _csv(name: str, columns: Columns) -> Format:
    return Format(name, SOURCE, csv_matches(columns), partial(read_csv, columns=columns))


def _json(name: str, columns: Columns) -> Format:
    return Format(name, SOURCE, json_matches(columns), partial(read_json, columns=columns))


def _is_table(head: bytes, name: str) -> bool:
    return name.lower().endswith(".csv")


def _is_json(head: bytes, name: str) -> bool:
    return name.lower().endswith((".json", ".jsonl", ".ndjson"))


def _is_text(head: bytes, name: str) -> bool:
    return name.lower().endswith((".txt", ".text", ".note"))


FORMATS = (
    *ccda.FORMATS,
    *fhir.FORMATS,
    _csv("MTS-Dialog CSV", MTS_DIALOG),
    _csv("MTSamples CSV", MTSAMPLES_FULL),
    _csv("MTSamples CSV (label, description, text)", MTSAMPLES),
    _json("ACI-Bench JSON", ACI_BENCH),
    _json("Presidio synthetic JSON", PRESIDIO),
)

# Nothing in such files says that they are notes.
NAMED_ONLY = (
    Format("CSV of notes", SOURCE, _is_table, partial(read_csv, columns=ANY)),
    Format("JSON of notes", SOURCE, _is_json, partial(read_json, columns=ANY)),
    Format("plain text note", SOURCE, _is_text, read_text_note),
)
