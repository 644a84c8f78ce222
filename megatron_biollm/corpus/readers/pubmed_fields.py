"""Fields of a PubMed record: title, date, identifiers, headings, retraction.

Elements are looked up in dictionaries of their parent's children: one pass over them costs less
than three searches, and a baseline has 38 million records.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from lxml import etree

from megatron_biollm.corpus.readers.dates import first_date, iso_date
from megatron_biollm.corpus.readers.inline import text_of

# An element's children by name, the first of each name.
Fields = dict[str, etree._Element]

# NLM's own words for an article that has no title in English.
_NO_TITLE = ("not available", "in process citation", "no title available", "untitled")
_AUTHORS_TRANSLATION = re.compile(r"\s*\(author'?s transl\.?\)", re.IGNORECASE)


def fields_of(element: etree._Element | None) -> Fields:
    """Nothing for None."""
    return {} if element is None else {child.tag: child for child in reversed(element)}


def alike(element: etree._Element | None) -> Iterator[etree._Element]:
    """The element and those of the same name right behind it."""
    name = None if element is None else element.tag
    while element is not None and element.tag == name:
        yield element
        element = element.getnext()


def plain_title(article: Fields) -> tuple[str, bool]:
    """The title, and whether NLM translated it, which its brackets say."""
    title = text_of(article.get("ArticleTitle"))
    if not title and "Book" in article:
        title = text_of(fields_of(article["Book"]).get("BookTitle"))
    bare = _unbracketed(title)
    if bare.rstrip(". ").lower() in _NO_TITLE:
        return text_of(article.get("VernacularTitle")), False
    return bare, bare != title


def date_of(article: Fields, journal: Fields) -> str | None:
    """When the issue appeared; else the electronic version; else, for a chapter, the book."""
    issue = fields_of(journal.get("JournalIssue"))
    if date := _date(issue.get("PubDate")) or _date(article.get("ArticleDate")):
        return date
    return _date(fields_of(article.get("Book")).get("PubDate"))


def identifiers(record: Fields, citation: Fields, article: Fields) -> dict[str, Any]:
    """pmid, version (where it is not the first), doi in lower case, pmcid."""
    known: dict[str, Any] = {}
    pmid = citation.get("PMID")
    if pmid is not None and (number := text_of(pmid)):
        known["pmid"] = number
        version = pmid.get("Version", "1").strip()
        if version.isdecimal() and version != "1":
            known["version"] = int(version[:9])
    data = record.get("PubmedData", record.get("PubmedBookData"))
    ids = fields_of(data).get("ArticleIdList")
    found = {e.get("IdType"): e for e in ids} if ids is not None else {}
    own = [e for e in alike(article.get("ELocationID")) if _is_doi(e)]
    doi = own[0] if own else found.get("doi")
    if text := text_of(doi):
        known["doi"] = text.lower()
    if pmcid := text_of(found.get("pmc")):
        known["pmcid"] = pmcid
    return known


def mesh_headings(citation: Fields) -> list[str]:
    """Names of the MeSH descriptors, as the indexers ordered them."""
    headings = citation.get("MeshHeadingList")
    if headings is None:
        return []
    return [name.text for name in headings.iter("DescriptorName") if name.text]


def is_retracted(citation: Fields, article: Fields) -> bool:
    """Whether the whole article was retracted; a notice that retracts another one was not."""
    types = article.get("PublicationTypeList")
    if types is not None and any(e.text == "Retracted Publication" for e in types):
        return True
    notes = citation.get("CommentsCorrectionsList")
    return notes is not None and any(e.get("RefType") == "RetractionIn" for e in notes)


def _unbracketed(title: str) -> str:
    """Without the brackets around a translated title; a title may begin with others: [3H]..."""
    if not title.startswith("["):
        return title
    depths = accumulate((c == "[") - (c == "]") for c in title)
    closing = next((place for place, depth in enumerate(depths) if depth == 0), len(title))
    rest = title[closing + 1 :].strip()
    if closing == len(title) or rest not in ("", "."):
        return title
    inner = _AUTHORS_TRANSLATION.sub("", title[1:closing]).strip()
    return inner if inner.endswith((".", "?", "!")) else inner + rest


def _date(element: etree._Element | None) -> str | None:
    if element is None:
        return None
    fields = {e.tag: e.text or "" for e in element}
    if "Year" in fields:
        return iso_date(fields["Year"], fields.get("Month"), fields.get("Day"))
    return first_date(fields.get("MedlineDate", ""))


def _is_doi(element: etree._Element) -> bool:
    return element.get("EIdType") == "doi" and element.get("ValidYN", "Y") == "Y"
