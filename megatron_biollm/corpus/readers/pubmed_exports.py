"""PubMed records in forms other than XML: PubMedQA's JSON, ASReview's CSV, PubTator's text.

- PubMedQA (https://github.com/pubmedqa/pubmedqa): {PMID: {"QUESTION", "CONTEXTS", "LABELS",
  "LONG_ANSWER", ...}}; the parts of an abstract, its conclusion as the long answer and its title
  as a question. It is a benchmark too: text read from it must not meet the benchmark's answers.
- ASReview data sets, and other tables with columns for title and abstract: CSV.
- PubTator (https://www.ncbi.nlm.nih.gov/research/pubtator/): blocks of ``PMID|t|title``,
  ``PMID|a|abstract`` and annotations, which are left out.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.readers.dates import iso_date
from megatron_biollm.corpus.readers.format import Format
from megatron_biollm.corpus.readers.inline import squeeze
from megatron_biollm.corpus.report import FileReport

_READ_BYTES = 1 << 20
# A record that does not end within this is none.
_LONGEST_RECORD = 1 << 26
_QA_HEAD = re.compile(rb'\s*\{\s*"[^"]{1,64}"\s*:\s*\{\s*"QUESTION"\s*:')
_TAGGER_LINE = re.compile(r"([^|\t]{1,64})\|([ta])\|(.*)", re.DOTALL)
_TAGGER_HEAD = re.compile(rb"\s*[^|\t\r\n]{1,64}\|t\|")
_PMID_COLUMNS = ("pubmedid", "pubmed_id", "pmid")


def read_pubmedqa(stream: BinaryIO, name: str, report: FileReport) -> Iterator[Document]:
    """Yields one document per PMID; the place from which no record can be read is reported."""
    for pmid, record in _members(stream, report):
        try:
            document = _qa_document(pmid, record)
        except UnicodeEncodeError:
            report.fault(f"record {pmid!a}", "not UTF-8, or half of a surrogate pair")
            continue
        except (AttributeError, KeyError, TypeError) as error:
            report.fault(f"record {pmid!a}", f"no record of PubMedQA: {error!r}")
            continue
        yield from _kept(document, report)


def read_abstract_table(stream: BinaryIO, name: str, report: FileReport) -> Iterator[Document]:
    """Yields one document per row with a title or an abstract.

    Rows that are not UTF-8, or do not end, are named by their line.
    """
    columns: list[str] | None = None
    for number, row in enumerate(_rows(stream, report)):
        if columns is None:
            columns = [column.strip().lower() for column in row]
            continue
        fields = dict(zip(columns, row, strict=False))
        yield from _kept(_row_document(fields, f"{name}#{number}"), report)


def _rows(stream: BinaryIO, report: FileReport) -> Iterator[list[str]]:
    # What is not UTF-8 comes through as surrogates, so that one bad row costs no other.
    rows = csv.reader(codecs.iterdecode(stream, "utf-8-sig", "surrogateescape"))
    while True:
        try:
            row = next(rows)
            "".join(row).encode()
        except StopIteration:
            return
        except csv.Error as error:
            report.fault(f"line {rows.line_num}", f"not CSV: {error}")
        except UnicodeEncodeError:
            report.fault(f"line {rows.line_num}", "not UTF-8; the row is left out")
        else:
            if row:
                yield row


def read_pubtator(stream: BinaryIO, name: str, report: FileReport) -> Iterator[Document]:
    """Yields one document per block between blank lines."""
    block: dict[str, str] = {}
    for number, line in enumerate(stream, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            report.fault(f"line {number}", "not UTF-8; the line is left out")
            continue
        if match := _TAGGER_LINE.match(text):
            if match[2] == "t" and "t" in block:
                yield from _kept(_tagged_document(block), report)
                block = {}
            block.setdefault("id", match[1].strip())
            block[match[2]] = match[3]
        elif not text.strip() and block:
            yield from _kept(_tagged_document(block), report)
            block = {}
    if block:
        yield from _kept(_tagged_document(block), report)


def _kept(document: Document | None, report: FileReport) -> Iterator[Document]:
    if document is None:
        report.drop("no_text")
    else:
        yield document


def _members(stream: BinaryIO, report: FileReport) -> Iterator[tuple[str, Any]]:
    """The members of one JSON object, of which only as much as holds the next one is in memory."""
    decoder = json.JSONDecoder()
    decode = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape").decode
    buffer, count = decode(stream.read(_READ_BYTES)).lstrip().removeprefix("{"), 0
    while True:
        buffer = buffer.lstrip(", \t\r\n")
        try:
            key, end = decoder.raw_decode(buffer)
            colon = re.compile(r"\s*:\s*").match(buffer, end)
            if colon is None:
                raise json.JSONDecodeError("Expecting ':'", buffer, end)
            value, end = decoder.raw_decode(buffer, colon.end())
        except (json.JSONDecodeError, RecursionError) as error:
            if buffer.startswith("}"):
                return
            more = stream.read(_READ_BYTES) if len(buffer) < _LONGEST_RECORD else b""
            if not more:
                reason = f"not valid JSON: {error}; nothing after it can be read"
                report.break_off(f"after record {count}", reason)
                return
            buffer += decode(more)
            continue
        count += 1
        buffer = buffer[end:]
        yield str(key), value


def _qa_document(pmid: str, record: dict[str, Any]) -> Document | None:
    json.dumps([pmid, record], ensure_ascii=False).encode()
    parts = [("title", squeeze(record["QUESTION"]))]
    labels = record.get("LABELS") or []
    for number, context in enumerate(record["CONTEXTS"]):
        label = squeeze(labels[number]) if number < len(labels) else ""
        text = squeeze(context)
        parts.append((label.lower() or "abstract", f"{label}: {text}" if label else text))
    parts.append(("conclusions", squeeze(record.get("LONG_ANSWER") or "")))
    return _document(parts, pmid, pmid, record.get("YEAR"), mesh=record.get("MESHES"))


def _row_document(fields: dict[str, str], fallback_id: str) -> Document | None:
    parts = [(name, squeeze(fields.get(name, ""))) for name in ("title", "abstract")]
    pmid = next((fields[c].strip() for c in _PMID_COLUMNS if fields.get(c, "").strip()), None)
    year = fields.get("year", "").removesuffix(".0")
    return _document(parts, pmid, pmid or fallback_id, year, doi=fields.get("doi", "").lower())


def _tagged_document(block: dict[str, str]) -> Document | None:
    parts = [("title", squeeze(block.get("t", ""))), ("abstract", squeeze(block.get("a", "")))]
    pmid = block["id"] if block["id"].isdecimal() else None
    return _document(parts, pmid, block["id"])


def _document(
    parts: Iterable[tuple[str, str]],
    pmid: str | None,
    id: str,
    year: str | None = None,
    **more: Any,
) -> Document | None:
    metadata = {key: value for key, value in {"pmid": pmid, **more}.items() if value}
    return Document.of_sections(
        parts, id=id, source="pubmed", date=iso_date(year), metadata=metadata
    )


def _is_pubmedqa(head: bytes, name: str) -> bool:
    return _QA_HEAD.match(head) is not None


def _is_abstract_table(head: bytes, name: str) -> bool:
    if not name.lower().endswith(".csv"):
        return False
    columns = head.partition(b"\n")[0].decode("utf-8-sig", "replace").lower()
    return {"title", "abstract"} <= {c.strip().strip('"') for c in columns.split(",")}


def _is_pubtator(head: bytes, name: str) -> bool:
    return _TAGGER_HEAD.match(head) is not None


FORMATS = (
    Format("PubMedQA JSON", "pubmed", _is_pubmedqa, read_pubmedqa),
    Format("CSV of abstracts", "pubmed", _is_abstract_table, read_abstract_table),
    Format("PubTator", "pubmed", _is_pubtator, read_pubtator),
)
