"""The body of a JATS article as named parts of text, in reading order.

Tag library: https://jats.nlm.nih.gov/archiving/tag-library/; the older NLM types (1.x to 3.x) use
the same names for what is read here. A section's title stands before it on a line of its own; the
part is named after the section of the highest level it lies in. Figures and tables follow the
paragraph they stand in: a figure gives its caption, a table its caption, rows and footnotes.

Left out: markers of citations (`citations.py`), alternative descriptions of pictures, permissions
of single figures, identifiers of objects, and PMC's own line "Click here for additional data file".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from lxml import etree

from megatron_biollm.corpus.readers.citations import unmarked
from megatron_biollm.corpus.readers.inline import append_child, squeeze
from megatron_biollm.corpus.readers.jats_floats import FIGURES, FURNITURE, add_figure, add_table
from megatron_biollm.corpus.readers.jats_text import (
    LEFT_OUT,
    Parts,
    definition_lines,
    inline,
    list_lines,
    plain,
)
from megatron_biollm.corpus.readers.tables import table_text
from megatron_biollm.corpus.readers.xml import local_name

_NUMBERING = re.compile(r"^(?:\d+(?:\.\d+)*|[IVX]+)[.:)]?\s+|[\s.:]+$")
# What a section is called, by how its title begins; else the title itself.
_ROLES = (
    ("methods", ("method", "material", "patients and method", "subjects and method",
                 "experimental procedure", "participants and method")),
    ("introduction", ("introduction", "background")),
    ("results", ("result", "findings")),
    ("discussion", ("discussion",)),
    ("conclusions", ("conclusion", "concluding remark")),
)  # fmt: skip
_LONGEST_NAME = 60


def add_body(
    body: etree._Element, name: str, parts: Parts, top: bool = True, titled: bool = True
) -> None:
    """Adds the text of a body, an appendix or a group of floating figures.

    Args:
        name: of what lies in no section of its own.
        top: sections directly inside give their names to their text.
        titled: the title of `body` itself counts.

    Raises:
        RecursionError: thousands of levels deep.
    """
    flow = _Flow(name, parts, top)
    flow.titled = titled
    flow.run(body)


def section_name(title: str, kind: str | None = None) -> str:
    """``2. Materials and methods`` to "methods"; what has no known role keeps its title.

    Args:
        kind: the section's ``sec-type``, which speaks where there is no title.
    """
    bare = _NUMBERING.sub("", _NUMBERING.sub("", (title or kind or "body").strip())).lower()
    for role, beginnings in _ROLES:
        if bare.startswith(beginnings) and not re.search(r"\b(and|/) ?(discussion|results)", bare):
            return role
    return bare if bare and len(bare) <= _LONGEST_NAME else "body"


class _Flow:
    """Text and blocks mixed, as in a paragraph that holds a list: one text after the other.

    name: the part to which running text goes. late: figures, which follow the paragraph.
    """

    def __init__(self, name: str, parts: Parts, top: bool = False):
        self.name, self.parts, self.top, self.titled = name, parts, top, True
        self.run_text: list[str] = []
        self.in_paragraph = False
        self.late: list[Callable[[Parts], None]] = []

    def run(self, element: etree._Element) -> None:
        self.in_paragraph = local_name(element) == "p"
        self.run_text.append(element.text or "")
        for child in element:
            self._child(child, local_name(child))
            self.run_text.append(child.tail or "")
        self._flush()
        for add in self.late:
            add(self.parts)

    def _child(self, child: etree._Element, name: str) -> None:
        if name in LEFT_OUT or (name in ("title", "label") and not self.titled):
            return
        if name in FIGURES or name == "table-wrap":
            self._float(partial(add_table if name == "table-wrap" else add_figure, child))
        elif name in _BLOCKS:
            self._flush()
            _BLOCKS[name](self, child)
        else:
            append_child(child, self.run_text, inline)

    def _flush(self) -> None:
        text = squeeze(unmarked("".join(self.run_text)))
        self.run_text.clear()
        if not FURNITURE.fullmatch(text):
            self.parts.add(self.name, text)

    def _float(self, add: Callable[[Parts], None]) -> None:
        if self.in_paragraph:
            self.late.append(add)
        else:
            self._flush()
            add(self.parts)

    def section(self, child: etree._Element) -> None:
        heading = next((e for e in child if local_name(e) == "title"), None)
        title = plain(heading)
        name = section_name(title, child.get("sec-type")) if self.top else self.name
        _Flow(name, self.parts).run(child)

    def heading(self, child: etree._Element) -> None:
        """A title, with its section's number where that stands before it."""
        before = child.getprevious()
        number = plain(before) if before is not None and local_name(before) == "label" else ""
        self.parts.add(self.name, f"{number} {plain(child)}".strip())

    def label(self, child: etree._Element) -> None:
        following = child.getnext()
        if following is None or local_name(following) != "title":
            self.parts.add(self.name, plain(child))

    def block(self, child: etree._Element) -> None:
        _Flow(self.name, self.parts).run(child)

    def box(self, child: etree._Element) -> None:
        _Flow("box", self.parts).run(child)

    def items(self, child: etree._Element) -> None:
        self.parts.add(self.name, "\n".join(list_lines(child)))

    def definitions(self, child: etree._Element) -> None:
        self.parts.add(self.name, "\n".join(definition_lines(child)))

    def preformatted(self, child: etree._Element) -> None:
        self.parts.add(self.name, "".join(child.itertext()).strip("\n"))

    def table(self, child: etree._Element) -> None:
        self.parts.add("table", table_text(child, plain))

    def footnote(self, child: etree._Element) -> None:
        text = plain(child)
        self._float(lambda parts: parts.add(self.name, text))


_BLOCKS: dict[str, Callable[[_Flow, etree._Element], None]] = {
    "sec": _Flow.section, "app": _Flow.section, "title": _Flow.heading, "label": _Flow.label,
    "p": _Flow.block, "caption": _Flow.block, "disp-quote": _Flow.block, "speech": _Flow.block,
    "statement": _Flow.block, "verse-group": _Flow.block, "disp-formula-group": _Flow.block,
    "def-list": _Flow.definitions, "list": _Flow.items, "boxed-text": _Flow.box,
    "preformat": _Flow.preformatted, "code": _Flow.preformatted, "table": _Flow.table,
    "fn": _Flow.footnote, "fn-group": _Flow.block, "glossary": _Flow.block,
}  # fmt: skip
