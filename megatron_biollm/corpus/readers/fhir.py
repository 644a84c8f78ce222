"""FHIR R4 (https://hl7.org/fhir/R4): notes attached to resources, and narratives of resources.

A DocumentReference, DiagnosticReport or Composition with text is a note of its own. What else a
bundle holds (conditions, medications, measurements) becomes one document for the bundle, see
`fhir_summary`. Resources about people and institutions are not read.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, BinaryIO

from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.readers.blocks import html_text
from megatron_biollm.corpus.readers.ccda import ccda_note
from megatron_biollm.corpus.readers.fhir_summary import (
    Resource,
    concept,
    listed,
    narrative,
    summary_sections,
)
from megatron_biollm.corpus.readers.format import Format
from megatron_biollm.corpus.readers.json_records import json_records
from megatron_biollm.corpus.readers.languages import iso_639_1
from megatron_biollm.corpus.readers.note import SOURCE, is_whole_text, note
from megatron_biollm.corpus.readers.xml import parse_document
from megatron_biollm.corpus.report import FileReport

_NOTES = ("DocumentReference", "DiagnosticReport", "Composition")


def read_fhir(stream: BinaryIO, name: str, report: FileReport) -> Iterator[Document]:
    """Yields the notes of bundles and single resources (JSON, NDJSON).

    report: takes records that are no resource and broken attachments, and counts what has no
        text: bundles, resources, and attachments that lie elsewhere or are no text.
    """
    for position, record in json_records(stream, name, report):
        if record.get("resourceType") == "Bundle":
            yield from _of_bundle(record, position, report)
        else:
            yield from _of_resource(record, position, report)


def _of_bundle(bundle: Resource, position: str, report: FileReport) -> Iterator[Document]:
    resources = [e["resource"] for e in listed(bundle, "entry") if _is_resource(e.get("resource"))]
    people = list(_people(resources))
    notes = [resource for resource in resources if _is_note(resource)]
    found = 0
    for number, resource in enumerate(notes, start=1):
        for document in _of_resource(resource, f"{position}, note {number}", report, people):
            found += 1
            yield document
    if bundle.get("type") == "document" and found:
        # Its Composition says what the other resources say.
        return
    summary = _summary(bundle, [r for r in resources if not _is_note(r)], position, people)
    if summary is not None:
        yield summary
    elif not notes:
        report.drop("no_text")


def _is_resource(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("resourceType"), str)


def _is_note(resource: Resource) -> bool:
    kind = resource["resourceType"]
    return kind in ("DocumentReference", "Composition") or (
        kind == "DiagnosticReport" and bool(listed(resource, "presentedForm"))
    )


def _people(resources: list[Resource]) -> Iterator[Resource]:
    """Patients, relatives, staff, and the contacts of each."""
    for resource in resources:
        if resource["resourceType"] in ("Patient", "RelatedPerson", "Practitioner"):
            yield resource
            for contact in listed(resource, "contact"):
                name = contact.get("name")
                yield {"name": [name] if isinstance(name, dict) else []}


def _names(people: list[Resource]) -> Iterator[str]:
    for name in (name for person in people for name in listed(person, "name")):
        given = name.get("given")
        words = [name.get("family"), *(given if isinstance(given, list) else [])]
        yield from (word for word in words if isinstance(word, str))


def _numbers(people: list[Resource]) -> Iterator[str]:
    for person in people:
        if person.get("resourceType") == "Patient":
            yield from (_string(i.get("value")) for i in listed(person, "identifier"))


def _summary(
    bundle: Resource, resources: list[Resource], position: str, people: list[Resource]
) -> Document | None:
    numbers = [r.get("id") for r in resources if r["resourceType"] == "Patient"]
    patient = f"Patient/{numbers[0]}" if len(numbers) == 1 and numbers[0] else None
    return note(
        summary_sections(resources),
        identity=(position, str(bundle.get("id"))),
        patient=patient,
        date=_string(bundle.get("timestamp")),
        names=_names(people),
        numbers=_numbers(people),
    )


def _of_resource(
    resource: Resource, position: str, report: FileReport, people: list[Resource] | None = None
) -> Iterator[Document]:
    if not _is_resource(resource):
        report.fault(position, 'not a FHIR resource: it has no "resourceType"')
        return
    try:
        document = _document(resource, position, people or [])
    except _NoText as error:
        report.drop(str(error))
    except (AttributeError, TypeError, LookupError, ValueError) as error:
        report.fault(position, f"its content cannot be read: {error}")
    else:
        yield document


class _NoText(Exception):
    """Why a resource has no text, as a drop's reason."""


def _document(resource: Resource, position: str, people: list[Resource]) -> Document:
    kind = resource["resourceType"]
    parts = _note_parts(resource) if kind in _NOTES else summary_sections([resource])
    document = note(
        parts,
        identity=(position, kind, str(resource.get("id"))),
        patient=_patient(resource),
        date=_string(resource.get("date") or resource.get("effectiveDateTime")),
        names=_names(people),
        numbers=_numbers(people),
        language=iso_639_1(_string(resource.get("language"))),
    )
    if document is None:
        raise _NoText("no_text")
    return document


def _note_parts(resource: Resource) -> Iterator[tuple[str, str]]:
    title = resource.get("title") or resource.get("description") or concept(resource.get("code"))
    attachments = [content.get("attachment") or {} for content in listed(resource, "content")]
    attachments += listed(resource, "presentedForm")
    texts = [("note", _attached(attachment)) for attachment in attachments]
    texts.append(("conclusion", _string(resource.get("conclusion"))))
    texts += _composed(listed(resource, "section"))
    if not any(text for _, text in texts):
        # Generated from the fields, and all there is where the note itself is no text.
        texts = [("narrative", narrative(resource))]
    if any(text for _, text in texts):
        yield "title", _string(title) or concept(resource.get("type"))
        yield from texts
    elif attachments:
        elsewhere = all(attachment.get("url") for attachment in attachments)
        raise _NoText("attachment_elsewhere" if elsewhere else "attachment_no_text")


def _composed(sections: list[Resource]) -> Iterator[tuple[str, str]]:
    for section in sections:
        title = _string(section.get("title")) or concept(section.get("code"))
        if text := narrative(section):
            yield title, "\n".join(filter(None, (title, text)))
        yield from _composed(listed(section, "section"))


def _attached(attachment: Resource) -> str:
    """The text of an attachment; "" where it lies elsewhere or is a picture, PDF or sound.

    Raises:
        ValueError, LookupError: broken base64, another encoding than it says, an unknown one.
    """
    kind, _, parameters = _string(attachment.get("contentType")).lower().partition(";")
    readable = kind.startswith("text/") or kind.endswith("xml") or not kind
    if not attachment.get("data") or not readable or kind == "text/rtf":
        return ""
    # binascii.Error is a ValueError.
    data = base64.b64decode(_string(attachment["data"]), validate=True)
    return _text(data, kind.strip(), parameters)


def _text(data: bytes, kind: str, parameters: str) -> str:
    if kind.endswith("xml") and b"ClinicalDocument" in data:
        inner = ccda_note(parse_document(data), ())
        return inner.text if inner else ""
    charset = parameters.partition("charset=")[2].strip(' "') or "utf-8"
    text = data.decode(charset)
    if not is_whole_text(text):
        raise ValueError("it holds NUL bytes")
    return html_text(text) if kind.endswith(("html", "xml")) else text.strip()


def _patient(resource: Resource) -> str | None:
    subject: Any = resource.get("subject") or resource.get("patient") or {}
    reference = _string(subject.get("reference"))
    # "urn:uuid:1", "Patient/1" and "https://host/fhir/Patient/1" name the same patient.
    number = reference.replace("urn:uuid:", "").rpartition("/")[2]
    return f"Patient/{number}" if number else None


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _matches(head: bytes, name: str) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[") and b'"resourceType"' in head


FORMATS = (Format("FHIR R4 JSON", SOURCE, _matches, read_fhir),)
