"""Text of JATS elements that stand on one line or are lists, without citations."""

from __future__ import annotations

from lxml import etree

from megatron_biollm.corpus.readers.citations import marked, unmarked
from megatron_biollm.corpus.readers.inline import append_child, squeeze, text_of
from megatron_biollm.corpus.readers.xml import local_name

LEFT_OUT = frozenset({
    "object-id", "permissions", "alt-text", "long-desc", "graphic", "inline-graphic", "sec-meta",
    "kwd-group", "ref-list", "front-stub", "counts", "processing-meta",
})  # fmt: skip


class Parts:
    """Named parts in order; neighbours of one name are one part."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, list[str]]] = []

    def add(self, name: str, text: str) -> None:
        if not text:
            return
        if self.parts and self.parts[-1][0] == name:
            self.parts[-1][1].append(text)
        else:
            self.parts.append((name, [text]))

    def joined(self) -> list[tuple[str, str]]:
        return [(name, "\n\n".join(texts)) for name, texts in self.parts]


def plain(element: etree._Element | None) -> str:
    """The text of a paragraph, a title or a cell on one line, without citations."""
    return squeeze(unmarked(text_of(element, inline)))


def inline(child: etree._Element, name: str) -> str | None:
    if name in LEFT_OUT:
        return ""
    if name == "list":
        return " " + " ".join(line.strip() for line in list_lines(child)) + " "
    return marked(child, name)


def list_lines(element: etree._Element, depth: int = 0) -> list[str]:
    """One line per item behind its label, its number or a hyphen; inner lists are indented."""
    lines = []
    numbered = element.get("list-type") == "order"
    for child in element:
        if local_name(child) != "list-item":
            lines.append("  " * depth + plain(child))
            continue
        number = 1 + sum(1 for _ in child.itersiblings("{*}list-item", preceding=True))
        lines += _item_lines(child, f"{number}." if numbered else "-", depth)
    return [line for line in lines if line.strip()]


def _item_lines(item: etree._Element, sign: str, depth: int) -> list[str]:
    parts = [item.text or ""]
    inner: list[str] = []
    for child in item:
        name = local_name(child)
        if name == "label":
            sign = plain(child) or sign
        elif name == "list":
            inner += list_lines(child, depth + 1)
        else:
            append_child(child, parts, inline)
        parts.append(child.tail or "")
    text = squeeze(unmarked("".join(parts)))
    return ([f"{'  ' * depth}{sign} {text}"] if text else []) + inner


def definition_lines(element: etree._Element) -> list[str]:
    """``term: definition``, one per line."""
    lines = []
    for child in element:
        if local_name(child) != "def-item":
            lines.append(plain(child))
            continue
        terms = [plain(e) for e in child if local_name(e) == "term"]
        meanings = [plain(e) for e in child if local_name(e) != "term"]
        lines.append(": ".join(filter(None, (", ".join(terms), " ".join(meanings)))))
    return [line for line in lines if line]
