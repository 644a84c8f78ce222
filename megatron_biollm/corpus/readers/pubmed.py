"""PubMed XML: titles and abstracts of a PubmedArticleSet, record by record.

Format: https://www.nlm.nih.gov/bsd/licensee/elements_descriptions.html. Memory does not grow
with the file: a record is dropped as soon as it has become a document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO
from xml.etree import ElementTree

from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.readers.format import Format, xml_root
from megatron_biollm.corpus.report import FileReport

_ROOTS = ("PubmedArticleSet", "PubmedBookArticleSet", "MedlineCitationSet")
# What holds the fields of one record: an article's citation, or a chapter of a book.
_RECORDS = ("MedlineCitation", "BookDocument")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def read_pubmed(stream: BinaryIO, name: str, report: FileReport) -> Iterator[Document]:
    """Yields one document per record that has a title or an abstract.

    Args:
        stream: the XML itself, already unpacked.
        name: file name, which stands in the id of a record without a PMID.
        report: takes records without text, and the place where the XML breaks off. What was
            read before the break is kept. A file with another root is passed over.
    """
    records = 0
    try:
        for record in _records(stream, report):
            records += 1
            document = _document(record, fallback_id=f"{name}#{records}")
            if document is None:
                report.drop("no_text")
            else:
                yield document
    except ElementTree.ParseError as error:
        line, column = error.position
        reason = str(error).split(":")[0].replace("no element found", "the file ends too early")
        report.fault(
            f"line {line}, column {column + 1}",
            f"not well-formed XML: {reason}; read {records} records before it, none after it",
        )


def _records(stream: BinaryIO, report: FileReport) -> Iterator[ElementTree.Element]:
    """Each complete record; the tree read so far is emptied behind it."""
    events = ElementTree.iterparse(stream, events=("start", "end"))
    _, root = next(events)
    if root.tag not in _ROOTS:
        report.passed_over = f"XML of another kind: its root is <{root.tag}>, not PubMed"
        return
    for event, element in events:
        if event == "end" and element.tag in _RECORDS:
            yield element
            root.clear()


def _document(record: ElementTree.Element, fallback_id: str) -> Document | None:
    article = record if record.tag == "BookDocument" else record.find("Article")
    if article is None:
        return None
    parts = [_title(article), _abstract(article.find("Abstract"))]
    text = "\n\n".join(part for part in parts if part)
    if not text:
        return None
    return Document(
        text=text,
        id=_text(record.find("PMID")) or fallback_id,
        source="pubmed",
        licence=_text(article.find("Abstract/CopyrightInformation")) or None,
        date=_date(article),
    )


def _title(article: ElementTree.Element) -> str:
    title = _text(article.find("ArticleTitle")) or _text(article.find("Book/BookTitle"))
    # NLM's own words for an article that has no title in any language it lists.
    return "" if title == "[Not Available]." else title


def _abstract(abstract: ElementTree.Element | None) -> str:
    """Sections one per line, each behind its label: ``METHODS: We measured ...``."""
    if abstract is None:
        return ""
    sections = []
    for section in abstract.findall("AbstractText"):
        label, text = " ".join(section.get("Label", "").split()), _text(section)
        if text:
            sections.append(f"{label}: {text}" if label and label != "UNLABELLED" else text)
    return "\n".join(sections)


def _text(element: ElementTree.Element | None) -> str:
    """All text inside an element, markup such as <sup> gone, white space made single spaces."""
    return "" if element is None else " ".join("".join(element.itertext()).split())


def _date(article: ElementTree.Element) -> str | None:
    for path in ("Journal/JournalIssue/PubDate", "ArticleDate", "Book/PubDate"):
        date = article.find(path)
        if date is not None and (known := _iso_date(date)):
            return known
    return None


def _iso_date(date: ElementTree.Element) -> str | None:
    """YYYY, YYYY-MM or YYYY-MM-DD, from numbers, month names or ``1998 Dec-1999 Jan``."""
    given = " ".join(_text(date.find(tag)) for tag in ("Year", "Month", "Day"))
    words = re.split(r"[\s-]+", given.strip() or _text(date.find("MedlineDate")))
    if not re.fullmatch(r"\d{4}", words[0]):
        return None
    month = _month(words[1]) if len(words) > 1 else None
    if month is None:
        return words[0]
    if len(words) > 2 and re.fullmatch(r"\d{1,2}", words[2]) and 1 <= int(words[2]) <= 31:
        return f"{words[0]}-{month:02d}-{int(words[2]):02d}"
    return f"{words[0]}-{month:02d}"


def _month(word: str) -> int | None:
    if word.isdecimal():
        return int(word) if 1 <= int(word) <= 12 else None
    return _MONTHS.index(word[:3].lower()) + 1 if word[:3].lower() in _MONTHS else None


def _matches(head: bytes, name: str) -> bool:
    return xml_root(head) in _ROOTS


FORMATS = (Format("PubMed XML", "pubmed", _matches, read_pubmed),)
