"""Patents of the USPTO: single documents, weekly bulk files (many in one), public search JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from lxml import etree

from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.readers.blocks import html_text
from megatron_biollm.corpus.readers.format import HEAD_BYTES, Format, xml_root
from megatron_biollm.corpus.readers.json_records import json_records
from megatron_biollm.corpus.readers.patent_xml import (
    pap_document,
    patent,
    st32_document,
    st36_document,
)
from megatron_biollm.corpus.readers.sgml import as_xml, with_characters
from megatron_biollm.corpus.readers.xml import parse_document, refusal
from megatron_biollm.corpus.readers.xml_documents import split_documents
from megatron_biollm.corpus.report import FileReport

_ROOTS: dict[str, Callable[[etree._Element], Document | None]] = {
    "us-patent-grant": st36_document,
    "us-patent-application": st36_document,
    "patent-application-publication": pap_document,
    "PATDOC": st32_document,
}
# Residues of a sequence listing, which lies beside its patent: a table, no text.
_SEQUENCES = "sequence-cwu"
# Formats whose characters have names from outside the file.
_NAMED_CHARACTERS = ("PATDOC", "patent-application-publication")


def read_patents(stream: BinaryIO, name: str, report: FileReport) -> Iterator[Document]:
    """Yields one document per patent, however many XML or SGML documents stand in the file.

    report: takes each broken one by its number, and counts sequence listings and patents without
        text. What follows a broken one is read.
    """
    for number, data in enumerate(split_documents(stream, report), start=1):
        root = xml_root(data[:HEAD_BYTES])
        if root == _SEQUENCES:
            report.drop("sequence_listing")
            continue
        position = f"{name}, document {number}"
        if root not in _ROOTS:
            report.fault(position, f"its root is {root!r}, which is no patent")
            continue
        try:
            document = _ROOTS[root](_parsed(data, root))
        except ValueError as error:
            report.fault(position, str(error))
            continue
        if document is None:
            report.drop("no_text")
        else:
            yield document


def _parsed(data: bytes, root: str) -> etree._Element:
    if root not in _NAMED_CHARACTERS:
        return parse_document(data)
    data = with_characters(data)
    try:
        return parse_document(data)
    except ValueError:
        if root != "PATDOC" or refusal(data):
            raise
        return parse_document(as_xml(data))


def read_search(stream: BinaryIO, name: str, report: FileReport) -> Iterator[Document]:
    """Yields one document per result of the Patent Public Search, https://ppubs.uspto.gov."""
    for position, record in json_records(stream, name, report, ("patents", "docs")):
        if not _is_result(record):
            report.fault(position, 'not a patent: it has no "guid" or no "inventionTitle"')
            continue
        document = _result(record)
        if document is None:
            report.drop("no_text")
        else:
            yield document


def _is_result(record: dict[str, Any]) -> bool:
    return isinstance(record.get("guid"), str) and "inventionTitle" in record


def _result(record: dict[str, Any]) -> Document | None:
    country, number, kind = (*record["guid"].split("-"), "", "", "")[:3]
    description = ("backgroundTextHtml", "briefHtml", "descriptionHtml")
    return patent(
        country=country or "US",
        number=number,
        kind=kind,
        date=_string(record.get("datePublished")),
        application=_string(record.get("applicationNumber")),
        codes=_codes(record),
        title=html_text(_string(record.get("inventionTitle"))),
        texts=[
            ("abstract", _lines(record, "abstractHtml")),
            ("description", "\n\n".join(filter(None, (_lines(record, k) for k in description)))),
            ("claims", _lines(record, "claimsHtml")),
        ],
        is_grant=record.get("type") != "US-PGPUB",
        ocr=record.get("type") == "USOCR",
    )


def _codes(record: dict[str, Any]) -> list[str]:
    codes: list[str] = []
    for key in ("ipcCodeFlattened", "cpcInventiveFlattened", "cpcAdditionalFlattened"):
        codes += _string(record.get(key)).split(";")
    for key in ("curIntlPatentClassificationPrimary", "curIntlPatentClassificationSecondary"):
        values = record.get(key)
        codes += [v for v in values if isinstance(v, str)] if isinstance(values, list) else []
    return codes


def _lines(record: dict[str, Any], key: str) -> str:
    """A field's paragraphs without their numbers, "[0012]" or "(12)"."""
    expected, lines = 1, []
    for line in html_text(_string(record.get(key))).splitlines():
        match = re.match(r"\((\d+)\) |\[\d{4,}\] ", line)
        # A list inside a paragraph has such numbers too, but they are not the next ones.
        if match and (match[1] is None or expected == 1 or int(match[1]) == expected):
            expected = int(match[1]) + 1 if match[1] else expected
            line = line[match.end() :]
        lines.append(line)
    return "\n\n".join(lines)


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _is_patent(head: bytes, name: str) -> bool:
    return xml_root(head) in (*_ROOTS, _SEQUENCES)


def _is_search_json(head: bytes, name: str) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[") and (
        b'"guid"' in head and b'"inventionTitle"' in head
    )


FORMATS = (
    Format("USPTO patents (XML, SGML)", "patents", _is_patent, read_patents),
    Format("USPTO public search JSON", "patents", _is_search_json, read_search),
)
