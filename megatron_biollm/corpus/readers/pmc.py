"""PMC articles in JATS or the older NLM types: one document per article, in full.

Sources: the .nxml files of PMC's open-access packages, articles one by one, sets of them
(pmc-articleset), answers of its OAI service. Tag library: https://jats.nlm.nih.gov/archiving/.

Read in this order: title, abstracts, body, appendices and what the back matter adds to the
subject, floating figures and tables, articles inside the article (abstracts of a meeting, letters
of editors and the authors' answers). Left out: references and the markers that point to them;
acknowledgements, biographies, notes, and sections at the end on funding, interests, ethics and
contributions; footnotes that the text does not point to; translations.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from lxml import etree

from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.readers.format import Format, xml_root
from megatron_biollm.corpus.readers.jats_text import Parts, plain
from megatron_biollm.corpus.readers.languages import iso_639_1
from megatron_biollm.corpus.readers.pmc_body import add_body
from megatron_biollm.corpus.readers.pmc_front import (
    XML_LANG,
    add_front,
    article_meta,
    child,
    children,
    date_of,
    licence_of,
    metadata_of,
)
from megatron_biollm.corpus.readers.xml import local_name, stream_elements
from megatron_biollm.corpus.report import FileReport

_ROOTS = ("article", "pmc-articleset", "OAI-PMH")
# All versions of the document type say so, and it is not loaded.
_DEFAULT_LANGUAGE = "en"
_INNER = ("sub-article", "response")
# What is read of the back matter, and what its parts are called.
_BACK = {
    "app-group": "appendix",
    "app": "appendix",
    "sec": "appendix",
    "glossary": "abbreviations",
}
_FORMALITIES = re.compile(
    r"acknowledg|funding|grant|interest|disclos|declar|contribut|authors?.? (statement|information)"
    r"|ethic|consent|disclaim|authorship|provenance|pre-publication|footnote|copyright",
    re.IGNORECASE,
)


def read_pmc(stream: BinaryIO, name: str, report: FileReport) -> Iterator[Document]:
    """Yields one document per article that has a title, an abstract or a body.

    Args:
        stream: the XML itself, already unpacked.
        name: the file's name, or its name in the package; it stands in the id of an article
            without a PMCID, a DOI or a PMID.
        report: takes articles without text, and the place where the XML breaks off.
    """
    articles = stream_elements(stream, ("article",), report, "articles")
    for number, article in enumerate(articles, start=1):
        fallback_id = name if number == 1 else f"{name}#{number}"
        try:
            document = _document(article, fallback_id)
        except RecursionError:
            report.fault(f"article {number}", "its elements lie thousands of levels deep")
            continue
        if document is None:
            report.drop("no_text")
        else:
            yield document


def _document(article: etree._Element, fallback_id: str) -> Document | None:
    meta = article_meta(article)
    metadata = metadata_of(article, meta)
    known = (metadata[key] for key in ("pmcid", "doi", "pmid") if key in metadata)
    parts = Parts()
    _add_article(article, parts, "title")
    return Document.of_sections(
        parts.joined(),
        id=next(known, fallback_id),
        source="pmc",
        licence=licence_of(meta),
        date=date_of(meta),
        language=iso_639_1(article.get(XML_LANG, _DEFAULT_LANGUAGE)),
        metadata=metadata,
    )


def _add_article(article: etree._Element, parts: Parts, title_name: str) -> None:
    add_front(article_meta(article), parts, title_name)
    is_inner = title_name != "title"
    for element in article:
        name = local_name(element)
        if name == "body":
            add_body(element, title_name if is_inner else "body", parts, top=not is_inner)
        elif name == "back":
            _add_back(element, parts, _footnotes_meant(article))
        elif name in ("floats-group", "floats-wrap"):
            add_body(element, "caption", parts, top=False)
        elif name in _INNER and element.get("article-type") != "translation":
            kind = (element.get("article-type") or "article").replace("-", " ").lower()
            _add_article(element, parts, kind)


def _footnotes_meant(article: etree._Element) -> set[str]:
    """The footnotes that the body points to; the others are formalities."""
    body = child(article, "body")
    marks = body.iter("{*}xref") if body is not None else ()
    return {e.get("rid", "") for e in marks if e.get("ref-type") == "fn"}


def _add_back(back: etree._Element, parts: Parts, footnotes: set[str]) -> None:
    for element in children(back, *_BACK):
        if local_name(element) != "sec" or not _is_formality(element):
            add_body(element, _BACK[local_name(element)], parts, top=False)
    for group in children(back, "fn-group"):
        for note in children(group, "fn"):
            if note.get("id") in footnotes:
                parts.add("footnotes", plain(note))


def _is_formality(section: etree._Element) -> bool:
    title = plain(child(section, "title")) or section.get("sec-type", "")
    return _FORMALITIES.search(title) is not None


def _matches(head: bytes, name: str) -> bool:
    root = (xml_root(head) or "").rpartition(":")[2]
    return root in _ROOTS and (root != "OAI-PMH" or b"article" in head)


FORMATS = (Format("PMC JATS", "pmc", _matches, read_pmc),)
