"""Figures and tables of JATS articles: what they say in words, as parts of their own."""

from __future__ import annotations

import re

from lxml import etree

from megatron_biollm.corpus.readers.inline import squeeze
from megatron_biollm.corpus.readers.jats_text import LEFT_OUT, Parts, plain
from megatron_biollm.corpus.readers.tables import table_text
from megatron_biollm.corpus.readers.xml import local_name

FIGURES = frozenset({
    "fig", "fig-group", "media", "supplementary-material", "chem-struct-wrap", "floats-wrap",
    "table-wrap-group",
})  # fmt: skip
# PMC writes this line under every supplementary file.
FURNITURE = re.compile(r"Click here (for|to view) (the )?additional data file\.?( \(.{0,40}\))?")

# Written in a place of their own.
_APART = FIGURES | {"table-wrap", "table", "label", "caption"}
_FEET = ("table-wrap-foot", "fn", "fn-group", "attrib")


def add_table(wrap: etree._Element, parts: Parts) -> None:
    """One part: label and caption, a line per row, footnotes."""
    heading, rows, others, feet = _heading(wrap), [], [], []
    for child in wrap:
        name = local_name(child)
        if name in _FEET:
            feet += [plain(e) for e in (child if name == "table-wrap-foot" else (child,))]
        elif tables := _tables(child):
            rows += [table_text(table, plain) for table in tables]
        elif name not in _APART and name not in LEFT_OUT:
            others.append(plain(child))
    parts.add("table", "\n".join(filter(None, [heading, *rows, *others, *feet])))


def add_figure(figure: etree._Element, parts: Parts) -> None:
    """Label and caption as one part, then what a group holds: figures, files, tables."""
    lines = [_heading(figure), squeeze(figure.text or "")]
    inside = []
    for child in figure:
        name = local_name(child)
        if name in FIGURES or name == "table-wrap":
            inside.append(child)
        elif name not in _APART and name not in LEFT_OUT:
            lines.append(plain(child))
        lines.append(squeeze(child.tail or ""))
    parts.add("caption", "\n".join(line for line in lines if line and not _is_furniture(line)))
    for child in inside:
        add = add_table if local_name(child) == "table-wrap" else add_figure
        add(child, parts)


def _tables(element: etree._Element) -> list[etree._Element]:
    """The element itself, or the table among several renderings of one."""
    if local_name(element) == "table":
        return [element]
    return list(element.iterchildren("{*}table")) if local_name(element) == "alternatives" else []


def _heading(element: etree._Element) -> str:
    """``Table 1. What it shows. How it was measured.``"""
    texts = []
    for child in element:
        if local_name(child) == "label":
            texts.append(_ended(plain(child)))
        elif local_name(child) == "caption":
            loose = squeeze(child.text or "")
            texts += [_ended(text) for text in (loose, *map(plain, child))]
    return " ".join(text for text in texts if text and not _is_furniture(text))


def _is_furniture(text: str) -> bool:
    return FURNITURE.fullmatch(text) is not None


def _ended(text: str) -> str:
    return text if not text or text[-1] in ".:;?!" else f"{text}."
