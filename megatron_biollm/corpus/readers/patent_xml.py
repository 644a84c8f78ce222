"""A patent grant or application of the USPTO as a document, from any of its XML formats.

| root | what | years |
|---|---|---|
| PATDOC | grants, ST.32 | 2001-2004 |
| patent-application-publication | applications, pap v1.5 and v1.6 | 2001-2004 |
| us-patent-grant, us-patent-application | ST.36, v4.0 to v4.6 | since 2005 |

Documentation: https://bulkdata.uspto.gov (Grant and Application Red Book). Numbers of paragraphs
and pictures are left out; claims keep their numbers, since they name each other by them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from lxml import etree

from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.readers.blocks import Layout, block_text
from megatron_biollm.corpus.readers.dates import iso_date
from megatron_biollm.corpus.readers.inline import text_of

LICENCE = "US patent text, public domain but for notices under 37 CFR 1.71(d)-(e)"

_BLOCKS = """
    p paragraph para heading h claim clm claim-text clmstep ul ol li dl dt dd lst
    maths math-cwu math-us chem-us chemistry-cwu footnote
"""
_LAYOUT = Layout(
    blocks=frozenset(_BLOCKS.split()),
    tables=frozenset({"table", "table-us"}),
    left_out=frozenset({"number", "img", "emi", "mathematica", "image"}),
    inline=frozenset({"dependent-claim-reference", "claim-ref", "clref"}),
)


def st36_document(root: etree._Element) -> Document | None:
    """A us-patent-grant or us-patent-application; None without text."""
    bibliography = root.find("us-bibliographic-data-grant")
    if bibliography is None:
        bibliography = root.find("us-bibliographic-data-application")
    publication = _find(bibliography, "publication-reference/document-id")
    codes = _st36_classes(bibliography) if bibliography is not None else []
    return patent(
        country=_field(publication, "country"),
        number=_field(publication, "doc-number"),
        kind=_field(publication, "kind"),
        date=_field(publication, "date"),
        application=_field(bibliography, "application-reference/document-id/doc-number"),
        codes=codes,
        title=text_of(_find(bibliography, "invention-title")),
        is_grant=root.tag == "us-patent-grant",
        texts=[
            ("abstract", _blocks(root.findall("abstract"))),
            ("description", _blocks(root.findall("description"))),
            ("claims", _blocks(root.findall("claims"))),
        ],
    )


def pap_document(root: etree._Element) -> Document | None:
    """A patent-application-publication; None without text."""
    about = root.find("subdoc-bibliographic-information")
    codes = [_raw(e) for e in (about.iter("ipc", "cpc") if about is not None else ())]
    return patent(
        country="US",
        number=_field(about, "document-id/doc-number"),
        kind=_field(about, "document-id/kind-code"),
        date=_field(about, "document-id/document-date"),
        application=_field(about, "domestic-filing-data/application-number/doc-number"),
        codes=codes,
        title=text_of(_find(about, "technical-information/title-of-invention")),
        is_grant=False,
        texts=[
            ("abstract", _blocks(root.findall("subdoc-abstract"))),
            ("description", _blocks(root.findall("subdoc-description"))),
            ("claims", _blocks(root.findall("subdoc-claims"))),
        ],
    )


def st32_document(root: etree._Element) -> Document | None:
    """A PATDOC; None without text."""
    for element in root.iter("*"):
        # All text stands in PDAT elements; line breaks between elements are none of it.
        element.tail = element.tail if (element.tail or "").strip() else None
        element.tag = {"SP": "sup", "SB": "sub"}.get(element.tag, element.tag)
    about = root.find("SDOBI")
    found = [] if about is None else about.iterfind("B500/B510/*")
    codes = [_raw(e) for e in found if e.tag in ("B511", "B512", "B513")]
    return patent(
        country=_field(about, "B100/B190") or "US",
        number=_field(about, "B100/B110"),
        kind=_field(about, "B100/B130"),
        date=_field(about, "B100/B140"),
        application=_field(about, "B200/B210"),
        codes=codes,
        title=text_of(_find(about, "B500/B540")),
        is_grant=True,
        texts=[
            ("abstract", _blocks(root.findall("SDOAB"))),
            ("description", _blocks(root.findall("SDODE"))),
            ("claims", _blocks(root.findall("SDOCL"))),
        ],
    )


def patent(
    country: str,
    number: str,
    kind: str,
    date: str,
    application: str,
    codes: Iterable[str],
    title: str,
    is_grant: bool,
    texts: list[tuple[str, str]],
    **more: Any,
) -> Document | None:
    """A document from a patent's fields as they stand in the source; None without text.

    Args:
        number: of the publication; zeros in front of it are left out of the document's id.
        application: of the application, which grant and application share: the family.
        codes: of the IPC and CPC, in any of their spellings.
        more: further metadata.
    """
    family = re.sub(r"\D", "", application).lstrip("0")
    metadata: dict[str, Any] = {
        "family": f"{country}{family}" if family else "",
        "classification": list(dict.fromkeys(filter(None, map(symbol, codes)))),
        "title": title,
        "kind": "grant" if is_grant else "application",
        **more,
    }
    body = any(text for name, text in texts)
    return Document.of_sections(
        [("title", title), *texts] if body else [],
        id=f"{country}{_plain_number(number)}{kind}",
        source="patents",
        licence=LICENCE,
        date=iso_date(date[:4], *re.findall(r"\d\d", date[4:])[:2]),
        language="en",
        metadata={name: value for name, value in metadata.items() if value},
    )


def symbol(code: str) -> str:
    """``A61K31/7068`` for "A61K 31/7068 20060101", "A61K031/7068", "A61K 317068"; "" for none.

    Without a slash, as until 2005, columns 5 to 7 hold the main group and the rest the subgroup.
    """
    code = code.strip()
    columns = re.fullmatch(r"([A-HY]\d\d[A-Z])([ \d]{2}\d)(\d{2,5})", code)
    if columns:
        return f"{columns[1]}{int(columns[2])}/{columns[3]}"
    match = re.match(r"([A-HY]\d\d[A-Z])\s*(?:0*(\d{1,4})\s*/\s*(\d{2,6}))?", code)
    if match is None:
        return ""
    subclass, group, subgroup = match.groups()
    return f"{subclass}{group}/{subgroup}" if group else subclass


def _st36_classes(bibliography: etree._Element) -> list[str]:
    codes = [_raw(e) for e in bibliography.iterfind("classification-ipc/*") if e.tag != "edition"]
    for element in bibliography.iter("classification-ipcr", "classification-cpc"):
        part = {e.tag: text_of(e) for e in element}
        if part.get("section"):
            subclass = part["section"] + part.get("class", "") + part.get("subclass", "")
            codes.append(f"{subclass}{part.get('main-group')}/{part.get('subgroup')}")
    return codes


def _raw(element: etree._Element) -> str:
    """With its spaces, which stand for digits."""
    return "".join(element.itertext())


def _blocks(elements: Iterable[etree._Element]) -> str:
    return "\n\n".join(filter(None, (block_text(e, _LAYOUT, "\n\n") for e in elements)))


def _find(element: etree._Element | None, path: str) -> etree._Element | None:
    return None if element is None else element.find(path)


def _field(element: etree._Element | None, path: str) -> str:
    return text_of(_find(element, path))


def _plain_number(number: str) -> str:
    match = re.fullmatch(r"([A-Z]*)0*(\w+)", number.strip())
    return match[1] + match[2] if match else number
