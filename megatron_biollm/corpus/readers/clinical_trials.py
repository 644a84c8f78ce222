"""ClinicalTrials.gov: studies of the API v2 (JSON), of API v1 (JSON), and of the legacy XML.

One study a file, lists of studies, pages ({"studies": [...]}) and JSON lines. Terms of use:
https://clinicaltrials.gov/about-site/terms-conditions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.readers.dates import iso_date
from megatron_biollm.corpus.readers.format import Format, xml_root
from megatron_biollm.corpus.readers.json_records import json_records
from megatron_biollm.corpus.readers.trial_api_v1 import from_api_v1
from megatron_biollm.corpus.readers.trial_results import Node
from megatron_biollm.corpus.readers.trial_text import trial_sections, words
from megatron_biollm.corpus.readers.trial_xml import from_xml
from megatron_biollm.corpus.readers.xml import stream_elements
from megatron_biollm.corpus.report import FileReport

LICENCE = "ClinicalTrials.gov terms and conditions (US government publication)"


def read_api(stream: BinaryIO, name: str, report: FileReport) -> Iterator[Document]:
    """Yields one document per study of API v2 or v1.

    report: takes studies without text, and records that are no study.
    """
    for position, record in json_records(stream, name, report, ("studies", "FullStudies")):
        study = record.get("Study") or record
        if "ProtocolSection" in study:
            study = from_api_v1(study)
        elif "protocolSection" not in study:
            report.fault(position, 'not a study: it has no "protocolSection"')
            continue
        try:
            yield from _documents(study, position, report)
        except (AttributeError, TypeError, KeyError) as error:
            report.fault(position, f"not the shape of a study: {error}")


def read_legacy_xml(stream: BinaryIO, name: str, report: FileReport) -> Iterator[Document]:
    """Yields the study of a clinical_study file. A list of search results holds none."""
    for element in stream_elements(stream, ("clinical_study",), report, "studies"):
        yield from _documents(from_xml(element), name, report)


def _documents(study: Node, position: str, report: FileReport) -> Iterator[Document]:
    protocol: Node = study.get("protocolSection") or {}
    nct_id = (protocol.get("identificationModule") or {}).get("nctId")
    status = protocol.get("statusModule") or {}
    metadata = {"nct_id": nct_id, "status": words(status.get("overallStatus"))}
    document = Document.of_sections(
        trial_sections(study),
        id=str(nct_id or position.replace(", record ", "#").replace(", line ", "#")),
        source="clinical_trials",
        licence=LICENCE,
        date=_date(status),
        language="en",
        metadata={key: value for key, value in metadata.items() if value},
    )
    if document is None:
        report.drop("no_text")
    else:
        yield document


def _date(status: Node) -> str | None:
    """When the study was last updated, else first submitted."""
    struct = status.get("lastUpdatePostDateStruct") or {}
    candidates = (
        struct.get("date"),
        status.get("lastUpdateSubmitDate"),
        status.get("studyFirstSubmitDate"),
    )
    return next(filter(None, map(_iso_date, candidates)), None)


def _iso_date(value: Any) -> str | None:
    """ISO form of 2023-10-17, 2023-10, "October 17, 2023" or "October 2023"."""
    text = value.strip() if isinstance(value, str) else ""
    if match := re.fullmatch(r"([A-Z][a-z]+)(?: (\d{1,2}),)? (\d{4})", text):
        month, day, year = match.groups()
        return iso_date(year, month, day)
    return iso_date(*text.split("-")[:3])


def _is_json(head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")


def _is_api(head: bytes, name: str) -> bool:
    keys = (b'"protocolSection"', b'"ProtocolSection"', b'"FullStudiesResponse"')
    return _is_json(head) and any(key in head for key in keys)


def _is_legacy_xml(head: bytes, name: str) -> bool:
    return xml_root(head) == "clinical_study"


def _is_search(head: bytes, name: str) -> bool:
    return xml_root(head) == "rss" and b"ClinicalTrials.gov" in head


def _read_search(stream: BinaryIO, name: str, report: FileReport) -> Iterator[Document]:
    """A list of links to studies holds none."""
    return iter(())


FORMATS = (
    Format("ClinicalTrials.gov API JSON", "clinical_trials", _is_api, read_api),
    Format("ClinicalTrials.gov XML", "clinical_trials", _is_legacy_xml, read_legacy_xml),
    Format("ClinicalTrials.gov search feed", "clinical_trials", _is_search, _read_search),
)
