"""Tables as lines of cells: XHTML's (tr, th, td) and CALS's (row, entry), in any namespace.

Columns stay in place: a cell over several rows or columns is written once and leaves empty cells
behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lxml import etree

from megatron_biollm.corpus.readers.inline import text_of
from megatron_biollm.corpus.readers.xml import local_name

_ROWS = ("tr", "row")
_CELLS = ("td", "th", "entry")
# No table is wider; a span of a billion is a mistake or worse.
_WIDEST = 200


def table_text(table: etree._Element, cell_text: Callable[[etree._Element], str] = text_of) -> str:
    """One line per row that holds text, cells separated by `` | ``.

    Args:
        table: any element that has rows somewhere inside it.
        cell_text: the text of one cell, on one line.
    """
    spanned: dict[int, int] = {}
    lines = []
    for row in _rows(table):
        cells = _row(row, spanned, cell_text)
        if any(cells):
            lines.append(" | ".join(cells).rstrip(" |"))
    return "\n".join(lines)


def _rows(element: etree._Element) -> Iterator[etree._Element]:
    """Rows in order; a table inside a cell belongs to the cell."""
    for child in element:
        if local_name(child) in _ROWS:
            yield child
        elif local_name(child) not in _CELLS:
            yield from _rows(child)


def _row(
    row: etree._Element, spanned: dict[int, int], cell_text: Callable[[etree._Element], str]
) -> list[str]:
    """The row's cells, and an empty one for each place taken from above or from the left.

    spanned: column to the number of rows below that a cell still covers; counted down here.
    """
    cells: list[str] = []
    below: dict[int, int] = {}
    for cell in (child for child in row if local_name(child) in _CELLS):
        while spanned.get(len(cells)) and len(cells) < _WIDEST:
            cells.append("")
        width = max(_span(cell, "colspan"), 1)
        height = max(_span(cell, "rowspan") - 1, _span(cell, "morerows"), 0)
        below |= dict.fromkeys(range(len(cells), len(cells) + width), height)
        cells += [cell_text(cell)] + [""] * (width - 1)
    left = {column: rows - 1 for column, rows in spanned.items()} | below
    spanned.clear()
    spanned.update({column: rows for column, rows in left.items() if rows > 0})
    return cells


def _span(cell: etree._Element, name: str) -> int:
    value = cell.get(name)
    if value is None:
        return 0
    value = value.strip()[:4]
    return min(int(value), _WIDEST) if value.isdecimal() else 0
