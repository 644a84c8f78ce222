"""The front matter of a JATS article: title, abstracts, identifiers, licence, dates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lxml import etree

from megatron_biollm.corpus.readers.dates import iso_date
from megatron_biollm.corpus.readers.inline import text_of
from megatron_biollm.corpus.readers.jats_text import Parts, plain
from megatron_biollm.corpus.readers.licences import short_licence
from megatron_biollm.corpus.readers.pmc_body import add_body
from megatron_biollm.corpus.readers.xml import local_name

XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
XLINK_HREF = "{http://www.w3.org/1999/xlink}href"

# The date on which a reader could first have it comes first; PMC's own release date is none.
_DATES = ("epub", "epub-ppub", "pub", "ppub", "publication", "collection")
_RETRACTED = ("retraction-forward", "retracted-by")
_LONGEST_LICENCE = 300


def child(element: etree._Element | None, *names: str) -> etree._Element | None:
    """The first child with one of the local names."""
    return None if element is None else next(children(element, *names), None)


def children(element: etree._Element, *names: str) -> Iterator[etree._Element]:
    return (e for e in element if local_name(e) in names)


def article_meta(article: etree._Element) -> etree._Element | None:
    """``front/article-meta``, or the ``front-stub`` of an article inside an article."""
    stub = child(article, "front-stub")
    return stub if stub is not None else child(child(article, "front"), "article-meta")


def add_front(meta: etree._Element | None, parts: Parts, title_name: str = "title") -> None:
    """Adds title and abstracts. Translated ones (trans-title, trans-abstract) are left out."""
    titles = child(meta, "title-group")
    title = plain(child(titles, "article-title"))
    subtitle = plain(child(titles, "subtitle"))
    if title and subtitle:
        title += f" {subtitle}" if title[-1] in ".:?!" else f": {subtitle}"
    parts.add(title_name, title)
    for abstract in children(meta, "abstract") if meta is not None else ():
        _add_abstract(abstract, parts)


def _add_abstract(abstract: etree._Element, parts: Parts) -> None:
    """Sections behind their titles, ``Methods: We measured ...``, as in PubMed's abstracts."""
    name = (abstract.get("abstract-type") or "abstract").replace("-", " ").lower()
    if name not in ("abstract", "normal") or child(abstract, "sec") is None:
        add_body(abstract, "abstract" if name == "normal" else name, parts, top=False)
        return
    for element in abstract:
        if local_name(element) == "sec":
            _add_labelled(element, parts)
        elif local_name(element) not in ("title", "label"):
            parts.add("abstract", plain(element))


def _add_labelled(section: etree._Element, parts: Parts) -> None:
    title = plain(child(section, "title")).rstrip(": ")
    inside = Parts()
    add_body(section, title.lower() or "abstract", inside, top=False, titled=False)
    for number, (name, text) in enumerate(inside.joined()):
        parts.add(name, f"{title}: {text}" if title and not number else text)


def identifiers(meta: etree._Element | None) -> dict[str, str]:
    """pmid, pmcid (with its letters) and doi (in lower case)."""
    known: dict[str, str] = {}
    for element in children(meta, "article-id") if meta is not None else ():
        kind, value = element.get("pub-id-type"), text_of(element)
        if kind in ("pmc", "pmcid") and value:
            known["pmcid"] = "PMC" + value.upper().removeprefix("PMC")
        elif kind in ("pmid", "doi") and value:
            known[kind] = value.lower()
    return known


def metadata_of(article: etree._Element, meta: etree._Element | None) -> dict[str, Any]:
    """Identifiers, journal, type, keywords, and whether the article was retracted."""
    known: dict[str, Any] = identifiers(meta)
    journal = child(child(article, "front"), "journal-meta")
    group = child(journal, "journal-title-group")
    title = text_of(child(group if group is not None else journal, "journal-title"))
    keywords = [
        text
        for group in (children(meta, "kwd-group") if meta is not None else ())
        for element in group.iter("{*}kwd")
        if (text := plain(element))
    ]
    found = {
        "journal": title,
        "article_type": article.get("article-type"),
        "keywords": keywords,
        "retracted": _is_retracted(meta),
    }
    return known | {name: value for name, value in found.items() if value}


def date_of(meta: etree._Element | None) -> str | None:
    """Of the first publication, electronic or printed."""
    dates: dict[str, str] = {}
    for element in children(meta, "pub-date") if meta is not None else ():
        kind = element.get("pub-type") or element.get("date-type") or "pub"
        fields = {local_name(e): e.text for e in element}
        date = iso_date(fields.get("year"), fields.get("month"), fields.get("day"))
        if date:
            dates.setdefault(kind, date)
    return next((dates[kind] for kind in _DATES if kind in dates), None)


def licence_of(meta: etree._Element | None) -> str | None:
    """A short name where one is known, else the statement's own words, cut to 300 characters."""
    permissions = child(meta, "permissions")
    if permissions is None:
        permissions = meta
    licence = child(permissions, "license")
    copyright_line = text_of(child(permissions, "copyright-statement")) or None
    if licence is None:
        return short_licence(copyright_line) or copyright_line
    words = text_of(licence)
    links = [e.get(XLINK_HREF) for e in licence.iter("{*}ext-link", "{*}uri")]
    references = [text_of(e) for e in permissions.iter("{*}license_ref")]
    name = short_licence(licence.get(XLINK_HREF), *references, *links, words)
    return name or words[:_LONGEST_LICENCE] or copyright_line


def _is_retracted(meta: etree._Element | None) -> bool:
    if meta is None:
        return False
    return any(
        e.get("related-article-type") in _RETRACTED for e in children(meta, "related-article")
    )
