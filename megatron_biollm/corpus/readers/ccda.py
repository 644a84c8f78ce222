"""C-CDA documents (HL7 CDA R2, ClinicalDocument): titles and narrative of their sections.

What people read is the narrative block of each section
(https://build.fhir.org/ig/HL7/CDA-core-sd/narrative.html); the coded entries repeat it. Of the
header, which names patient, staff and institutions, only title, date and language become part of
the document; names and numbers go with it as what de-identification has to look for.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import BinaryIO

from lxml import etree

from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.readers.blocks import Layout, block_text, html_text
from megatron_biollm.corpus.readers.format import Format, xml_root
from megatron_biollm.corpus.readers.inline import text_of
from megatron_biollm.corpus.readers.languages import iso_639_1
from megatron_biollm.corpus.readers.note import SOURCE, note
from megatron_biollm.corpus.readers.xml import parse_document
from megatron_biollm.corpus.readers.xml_documents import split_documents
from megatron_biollm.corpus.report import FileReport

_LAYOUT = Layout(blocks=frozenset({"paragraph", "list", "item", "caption", "footnote", "tr"}))


def read_ccda(stream: BinaryIO, name: str, report: FileReport) -> Iterator[Document]:
    """Yields one document per ClinicalDocument, of which a file may hold several."""
    for number, data in enumerate(split_documents(stream, report), start=1):
        try:
            document = ccda_note(parse_document(data), (name, str(number)))
        except ValueError as error:
            report.fault(f"{name}, document {number}", str(error))
            continue
        if document is None:
            report.drop("no_text")
        else:
            yield document


def ccda_note(root: etree._Element, identity: tuple[str, ...]) -> Document | None:
    """A parsed ClinicalDocument as a note; None without narrative.

    identity: added to the document's number, which templates give to many documents.

    Raises:
        ValueError: a body that is packed into base64 and is broken.
    """
    sections = [(name, text) for name, text in _sections(root) if text]
    title = text_of(root.find("{*}title"))
    return note(
        [("title", title), *sections] if sections else [],
        identity=(_number(root.find("{*}id")), *identity),
        patient=_number(root.find("{*}recordTarget/{*}patientRole/{*}id")) or None,
        date=_attribute(root, "effectiveTime", "value"),
        names=(text_of(name) for name in root.iter("{*}given", "{*}family")),
        numbers=(
            number.get("extension", "")
            for number in root.iterfind("{*}recordTarget/{*}patientRole/{*}id")
        ),
        language=iso_639_1(_attribute(root, "languageCode", "code")),
    )


def _sections(root: etree._Element) -> Iterator[tuple[str, str]]:
    """(title, title and narrative) of every section, those inside others after them."""
    for section in root.iterfind("{*}component/{*}structuredBody//{*}section"):
        title = text_of(section.find("{*}title"))
        narrative = block_text(section.find("{*}text"), _LAYOUT)
        yield title, f"{title}\n{narrative}".strip() if narrative else ""
    for body in root.iterfind("{*}component/{*}nonXMLBody/{*}text"):
        yield "body", _unstructured(body)


def _unstructured(body: etree._Element) -> str:
    """A body that is text or HTML; "" for pictures, PDF and what else is no text."""
    kind, text = body.get("mediaType", "text/plain"), "".join(body.itertext())
    if not kind.startswith("text/") or kind == "text/rtf":
        return ""
    if body.get("representation") == "B64":
        try:
            text = base64.b64decode("".join(text.split()), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise ValueError(f"its body is not base64 of UTF-8 text: {error}") from error
    return html_text(text) if kind == "text/html" else text.strip()


def _number(identifier: etree._Element | None) -> str:
    if identifier is None:
        return ""
    return "|".join(filter(None, (identifier.get("root"), identifier.get("extension"))))


def _attribute(root: etree._Element, child: str, name: str) -> str:
    found = root.find(f"{{*}}{child}")
    return "" if found is None else found.get(name, "")


def _matches(head: bytes, name: str) -> bool:
    return (xml_root(head) or "").rpartition(":")[2] == "ClinicalDocument"


FORMATS = (Format("C-CDA XML", SOURCE, _matches, read_ccda),)
