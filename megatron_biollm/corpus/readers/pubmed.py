"""PubMed XML: titles and abstracts of a PubmedArticleSet, record by record.

Format: https://www.nlm.nih.gov/bsd/licensee/elements_descriptions.html; document types of 2012 to
2026, exports of efetch and of the web site included. Memory does not grow with the file.

What becomes of the fields:
- title: the English one; NLM's brackets around a translation go. The original
  (VernacularTitle) stands in only where there is no other.
- abstract: each part behind its label, a section of the label's name in lower case.
- OtherAbstract: kept as a section where it is English (summaries in plain language) or the only
  abstract; other translations say the same again in a language the document is not in.
- withdrawn PMIDs (DeleteCitation) go to `FileReport.deleted`, retracted articles are marked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from lxml import etree

from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.readers.format import Format, xml_root
from megatron_biollm.corpus.readers.inline import text_of
from megatron_biollm.corpus.readers.languages import iso_639_1
from megatron_biollm.corpus.readers.pubmed_fields import (
    Fields,
    alike,
    date_of,
    fields_of,
    identifiers,
    is_retracted,
    mesh_headings,
    plain_title,
)
from megatron_biollm.corpus.readers.xml import stream_elements
from megatron_biollm.corpus.report import FileReport

_ROOTS = (
    "PubmedArticleSet",
    "PubmedBookArticleSet",
    "MedlineCitationSet",
    "PubmedArticle",
    "PubmedBookArticle",
    "MedlineCitation",
)
_RECORDS = ("PubmedArticle", "PubmedBookArticle", "MedlineCitation", "BookDocument")
_DELETED = ("DeleteCitation", "DeleteDocument")
# Labels that say only that there is none.
_NO_LABEL = ("UNLABELLED", "UNLABELED", "UNASSIGNED")


def read_pubmed(stream: BinaryIO, name: str, report: FileReport) -> Iterator[Document]:
    """Yields one document per record that has a title or an abstract.

    A record whose citation is whole is kept even where the file breaks off behind it.

    Args:
        stream: the XML itself, already unpacked.
        name: file name, which stands in the id of a record without a PMID.
        report: takes records without text, PMIDs that the file withdraws, and the place where the
            XML breaks off.
    """
    count = 0
    for element in stream_elements(stream, _RECORDS + _DELETED, report):
        if element.tag in _DELETED:
            report.deleted += [pmid for e in element if (pmid := text_of(e))]
            continue
        count += 1
        document = _document(element, fallback_id=f"{name}#{count}")
        if document is None:
            report.drop("no_text")
        else:
            yield document


def _document(record: etree._Element, fallback_id: str) -> Document | None:
    outer = fields_of(record)
    element = outer.get("MedlineCitation", outer.get("BookDocument", record))
    citation = outer if element is record else fields_of(element)
    article = fields_of(citation["Article"]) if "Article" in citation else citation
    journal = fields_of(article.get("Journal"))
    title, is_translated = plain_title(article)
    abstract = article.get("Abstract")
    parts = [("title", title), *_abstract(abstract)]
    has_english = is_translated or len(parts) > 1
    if "OtherAbstract" in citation:
        parts += _other_abstracts(citation["OtherAbstract"], is_only=len(parts) == 1)
    if not any(text for _, text in parts):
        return None
    metadata = identifiers(outer, citation, article)
    metadata |= _metadata(citation, article, journal)
    return Document.of_sections(
        parts,
        id=metadata.get("pmid", fallback_id),
        source="pubmed",
        licence=text_of(fields_of(abstract).get("CopyrightInformation")) or None,
        date=date_of(article, journal),
        language=_language(article, metadata, has_english),
        metadata=metadata,
    )


def _abstract(abstract: etree._Element | None, name: str = "abstract") -> list[tuple[str, str]]:
    if abstract is None:
        return []
    parts = []
    for element in abstract:
        text = text_of(element) if element.tag == "AbstractText" else ""
        if not text:
            continue
        label = " ".join(element.get("Label", "").split()).rstrip(": ")
        if label and label.upper() not in _NO_LABEL:
            parts.append((label.lower(), f"{label}: {text}"))
        else:
            parts.append((name, text))
    return parts


def _other_abstracts(first: etree._Element, is_only: bool) -> list[tuple[str, str]]:
    parts = []
    for other in alike(first):
        if is_only or iso_639_1(other.get("Language", "eng")) == "en":
            parts += _abstract(other, other.get("Type", "other abstract").lower())
    return parts


def _language(article: Fields, metadata: dict[str, Any], has_english: bool) -> str | None:
    """The text's language: NLM's titles in brackets and its abstracts are English.

    The article's own language, where it is another, goes to the metadata.
    """
    codes = [iso_639_1(element.text) for element in alike(article.get("Language"))]
    if not codes or "en" in codes:
        return "en" if codes else None
    metadata["article_language"] = codes[0]
    return "en" if has_english else codes[0]


def _metadata(citation: Fields, article: Fields, journal: Fields) -> dict[str, Any]:
    found = {
        "journal": text_of(journal.get("Title")),
        "book": text_of(fields_of(article.get("Book")).get("BookTitle")),
        "vernacular_title": text_of(article.get("VernacularTitle")),
        "mesh": mesh_headings(citation),
        "retracted": is_retracted(citation, article),
    }
    return {name: value for name, value in found.items() if value}


def _matches(head: bytes, name: str) -> bool:
    return xml_root(head) in _ROOTS


FORMATS = (Format("PubMed XML", "pubmed", _matches, read_pubmed),)
