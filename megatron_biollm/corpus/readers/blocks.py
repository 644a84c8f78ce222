"""Paragraphs, lists and tables of marked-up text as lines; what is inside a line as in `inline`."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from lxml import etree

from megatron_biollm.corpus.readers.inline import text_of
from megatron_biollm.corpus.readers.tables import table_text
from megatron_biollm.corpus.readers.xml import local_name

# No XML holds it, and `text_of` lets it through: it stands where a block was.
_MARK = "\0"
_HTML_TAG = re.compile(r"<[^<>]*>")


@dataclass(frozen=True)
class Layout:
    """Which elements are what, by local name in lower case. Every other one is part of a line.

    blocks: begin and end a line. tables: rows of cells, see `table_text`. breaks: end a line.
    left_out: not read. inline: part of a line whatever is inside them.
    """

    blocks: frozenset[str]
    tables: frozenset[str] = frozenset({"table"})
    breaks: frozenset[str] = frozenset({"br"})
    left_out: frozenset[str] = frozenset()
    inline: frozenset[str] = frozenset()


def block_text(element: etree._Element | None, layout: Layout, separator: str = "\n") -> str:
    """The text of an element, its blocks on lines of their own; "" for None.

    separator: between the outermost blocks; blocks inside blocks are one line break apart.
    """
    if element is None:
        return ""
    blocks: list[str] = []

    def replace(child: etree._Element, name: str) -> str | None:
        kind = name.lower()
        if kind in layout.left_out:
            return ""
        if kind in layout.inline:
            return text_of(child)
        if kind in layout.tables:
            blocks.append(_table(child, layout))
        elif kind in layout.blocks:
            blocks.append(block_text(child, layout))
        elif kind in layout.breaks:
            blocks.append("")
        else:
            return None
        return f"{_MARK}{len(blocks) - 1}{_MARK}"

    pieces = text_of(element, replace).split(_MARK)
    pieces[1::2] = [blocks[int(number)] for number in pieces[1::2]]
    return separator.join(filter(None, (piece.strip() for piece in pieces)))


def _table(table: etree._Element, layout: Layout) -> str:
    """Its captions, then its rows."""
    captions = [text_of(child) for child in table if local_name(child) in ("caption", "title")]
    rows = table_text(table, lambda cell: " ".join(block_text(cell, layout).split()))
    return "\n".join(filter(None, [*captions, rows])) or text_of(table)


def html_layout() -> Layout:
    """The layout of HTML and XHTML."""
    blocks = (
        "p div h1 h2 h3 h4 h5 h6 ul ol li dl dt dd pre blockquote section article header body hr"
    )
    left_out = frozenset({"script", "style", "head", "title"})
    return Layout(frozenset(blocks.split()), left_out=left_out)


def html_text(source: str, separator: str = "\n") -> str:
    """The text of an HTML page or fragment, however badly formed."""
    if not source.strip():
        return ""
    if "<" not in source and "&" not in source:
        return separator.join(" ".join(line.split()) for line in source.splitlines()).strip()
    # HTML has no entities of its own to declare, and its parser never loads anything.
    parser = etree.HTMLParser(
        no_network=True, huge_tree=True, remove_comments=True, remove_pis=True
    )
    root = etree.fromstring(f"<html><body>{source}</body></html>", parser)
    if any(entry.type == etree.ErrorTypes.ERR_RESOURCE_LIMIT for entry in parser.error_log):
        # Deeper than libxml2 goes, so that it left out the rest: no author wrote this.
        return " ".join(html.unescape(_HTML_TAG.sub(" ", source)).split())
    return block_text(root, html_layout(), separator)
