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
    child,
    child_text,
    date_of,
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
    citation = record
    if record.tag in ("PubmedArticle", "PubmedBookArticle"):
        citation = child(record, "MedlineCitation", "BookDocument")
    if citation is None:
        return None
    article = citation if citation.tag == "BookDocument" else child(citation, "Article")
    if article is None:
        return None
    title, translated = plain_title(article)
    abstract = child(article, "Abstract")
    parts = [("title", title), *_abstract(abstract)]
    has_english = translated or len(parts) > 1
    parts += _other_abstracts(citation, is_only=len(parts) == 1)
    metadata = _metadata(record, citation, article)
    return Document.of_sections(
        parts,
        id=metadata.get("pmid", fallback_id),
        source="pubmed",
        licence=child_text(abstract, "CopyrightInformation"),
        date=date_of(article),
        language=_language(article, metadata, has_english),
        metadata=metadata,
    )


def _abstract(abstract: etree._Element | None, name: str = "abstract") -> list[tuple[str, str]]:
    if abstract is None:
        return []
    parts = []
    for element in abstract.iterchildren("AbstractText"):
        text = text_of(element)
        if not text:
            continue
        label = " ".join(element.get("Label", "").split()).rstrip(": ")
        if label and label.upper() not in _NO_LABEL:
            parts.append((label.lower(), f"{label}: {text}"))
        else:
            parts.append((name, text))
    return parts


def _other_abstracts(citation: etree._Element, is_only: bool) -> list[tuple[str, str]]:
    parts = []
    for other in citation.iterchildren("OtherAbstract"):
        if is_only or iso_639_1(other.get("Language", "eng")) == "en":
            parts += _abstract(other, other.get("Type", "other abstract").lower())
    return parts


def _language(article: etree._Element, metadata: dict[str, Any], has_english: bool) -> str | None:
    """The text's language: NLM's titles in brackets and its abstracts are English.

    The article's own language, where it is another, goes to the metadata.
    """
    codes = [iso_639_1(element.text) for element in article.iterchildren("Language")]
    if not codes or "en" in codes:
        return "en" if codes else None
    metadata["article_language"] = codes[0]
    return "en" if has_english else codes[0]


def _metadata(
    record: etree._Element, citation: etree._Element, article: etree._Element
) -> dict[str, Any]:
    metadata: dict[str, Any] = identifiers(record, citation, article)
    journal = child(article, "Journal")
    if title := child_text(journal, "Title"):
        metadata["journal"] = title
    if book := child_text(child(article, "Book"), "BookTitle"):
        metadata["book"] = book
    if vernacular := child_text(article, "VernacularTitle"):
        metadata["vernacular_title"] = vernacular
    if mesh := mesh_headings(citation):
        metadata["mesh"] = mesh
    if is_retracted(citation, article):
        metadata["retracted"] = True
    return metadata


def _matches(head: bytes, name: str) -> bool:
    return xml_root(head) in _ROOTS


FORMATS = (Format("PubMed XML", "pubmed", _matches, read_pubmed),)
