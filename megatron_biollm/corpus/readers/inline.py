"""The text of an XML element with markup inside it: one rule for all sources.

White space of any kind becomes single spaces. A superscript or subscript is written in line, with
``^`` or ``_`` before it where digits would otherwise run into digits: 10<sup>6</sup> is ``10^6``
and never 106, CO<sub>2</sub> is ``CO2``. A formula is written once, in one form (`math.py`).
"""

from __future__ import annotations

import html
from collections.abc import Callable

from lxml import etree

from megatron_biollm.corpus.readers.math import mathml_text, tex_text
from megatron_biollm.corpus.readers.xml import local_name

# Given a child and its local name: what stands in its place, or None to go on inside it.
Replace = Callable[[etree._Element, str], str | None]

_RAISED = {"sup": "^", "superscript": "^", "sub": "_", "subscript": "_", "inf": "_"}
# What stands on a line of its own where lines are drawn; here a space keeps it apart.
_APART = frozenset({
    "break", "br", "p", "title", "label", "caption", "list", "list-item", "item", "li", "def",
    "disp-formula", "disp-quote", "tr", "td", "th", "row", "entry", "div", "paragraph",
})  # fmt: skip
_SIGNS = "+-−–"


def text_of(element: etree._Element | None, replace: Replace | None = None) -> str:
    """All text inside an element, in reading order; "" for None.

    Args:
        element: with its own text; its tail does not count.
        replace: decides about children, for example to leave out references.
    """
    if element is None:
        return ""
    if not len(element):
        return squeeze(element.text or "")
    parts: list[str] = []
    try:
        _collect(element, parts, replace)
    except RecursionError:
        # Thousands of levels are nothing an author wrote; the text is still the text.
        return squeeze("".join(element.itertext()))
    return squeeze("".join(parts))


def squeeze(text: str) -> str:
    """Runs of white space, breaks and odd spaces among them, as one space; none at the ends."""
    # Most texts need nothing; only a plain space is both white and printable.
    if text.isprintable() and "  " not in text:
        return text.strip()
    return " ".join(text.split())


def formula_text(element: etree._Element) -> str | None:
    """A formula, or the best one of several renderings; None for what is no formula."""
    name = local_name(element)
    if name == "math":
        return mathml_text(element)
    if name == "tex-math":
        return tex_text("".join(element.itertext()))
    if name != "alternatives":
        return None
    found = {local_name(child): child for child in reversed(element)}
    best = next((found[name] for name in ("tex-math", "math") if name in found), None)
    return None if best is None else formula_text(best)


def append_child(child: etree._Element, parts: list[str], replace: Replace | None = None) -> None:
    """Puts a child's text, without its tail, behind what `parts` hold of its parent's.

    Raises:
        RecursionError: thousands of levels deep.
    """
    name = local_name(child)
    instead = replace(child, name) if replace and name else None
    if instead is not None:
        parts.append(instead)
    elif not name:
        parts.append(_reference(child))
    elif (formula := formula_text(child)) is not None:
        parts.append(formula)
    elif name in _RAISED:
        inside: list[str] = []
        _collect(child, inside, replace)
        text = "".join(inside)
        parts += [_RAISED[name], text] if _would_fuse(parts, text) else [text]
    elif name in _APART:
        parts.append(" ")
        _collect(child, parts, replace)
        parts.append(" ")
    else:
        _collect(child, parts, replace)


def _collect(element: etree._Element, parts: list[str], replace: Replace | None) -> None:
    if element.text:
        parts.append(element.text)
    for child in element:
        append_child(child, parts, replace)
        if child.tail:
            parts.append(child.tail)


def _would_fuse(parts: list[str], text: str) -> bool:
    before = next((part for part in reversed(parts) if part), "")
    number = text.strip().lstrip(_SIGNS)
    return before[-1:].isdigit() and number[:1].isdigit()


def _reference(node: etree._Element) -> str:
    """An entity that the parser left alone, by its HTML name where it has one."""
    return html.unescape(node.text) if node.tag is etree.Entity else ""
