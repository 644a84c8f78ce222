"""BioC: articles with mentions and relations, in XML or JSON; read as `pubtator` reads its own.

Comeau et al. 2013, https://doi.org/10.1093/database/bat064. Offsets count from the beginning of
the article, whose passages have theirs.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from lxml import etree

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.archive import parse_xml
from megatron_biollm.evaluation.benchmarks.pubtator import Article, Mention
from megatron_biollm.evaluation.files import field


def read_bioc_xml(text: str, where: str) -> list[Article]:
    """The articles of a collection in XML.

    Raises:
        UserError: it is no whole XML or declares entities, or is not as published.
    """
    root = parse_xml(text.encode(), where)
    return [_article(one, where) for one in map(_from_xml, root.iterfind("document"))]


def read_bioc_json(text: str, where: str) -> list[Article]:
    """The articles of a collection in JSON.

    Raises:
        UserError: it is no JSON, or is not as published.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error}): download it again, whole") from error
    return [_article(one, where) for one in field(value, "documents", list, where)]


def _from_xml(document: etree._Element) -> dict[str, Any]:
    """A document as the JSON version has it."""
    return {
        "id": document.findtext("id"),
        "passages": [
            {
                "offset": _number(passage.findtext("offset")),
                "text": passage.findtext("text") or "",
                "annotations": [_annotation(one) for one in passage.iterfind("annotation")],
            }
            for passage in document.iterfind("passage")
        ],
        "relations": [{"infons": _infons(one)} for one in document.iterfind("relation")],
    }


def _annotation(element: etree._Element) -> dict[str, Any]:
    return {
        "infons": _infons(element),
        "text": element.findtext("text"),
        "locations": [
            {key: _number(place.get(key)) for key in ("offset", "length")}
            for place in element.iterfind("location")
        ],
    }


def _infons(element: etree._Element) -> dict[str, str]:
    return {one.get("key", ""): one.text or "" for one in element.iterfind("infon")}


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def _article(document: Mapping[str, Any], where: str) -> Article:
    pmid = field(document, "id", str, where)
    where = f"{where}: article {pmid}"
    passages = field(document, "passages", list, where)
    texts = [field(one, "text", str, where) for one in passages]
    article = Article(pmid, texts[0] if texts else "", " ".join(texts[1:]))
    moved = 0
    for passage, text in zip(passages, texts, strict=True):
        # In the published files a passage's offset may leave two characters between.
        shift = moved - field(passage, "offset", int, where)
        for mention in _mentions(passage, shift, where):
            article.add(mention, where)
        moved += len(text) + 1
    for relation in document.get("relations", []):
        article.relations.append(_relation(field(relation, "infons", dict, where), where))
    return article


def _mentions(passage: Mapping[str, Any], shift: int, where: str) -> Iterator[Mention]:
    for one in passage.get("annotations", []):
        infons = field(one, "infons", dict, where)
        text = field(one, "text", str, where)
        for place in field(one, "locations", list, where):
            start = field(place, "offset", int, where) + shift
            end = start + field(place, "length", int, where)
            kind = field(infons, "type", str, where)
            yield Mention(start, end, text, kind, field(infons, "identifier", str, where).strip())


def _relation(infons: Mapping[str, Any], where: str) -> tuple[str, ...]:
    return tuple(field(infons, key, str, where) for key in ("type", "entity1", "entity2", "novel"))
