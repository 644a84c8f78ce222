"""Small pictures as SVG elements inside the page: they scale, and they follow its colours.

The page must need no script, no font and no file beside it, and read well in light and dark; a
picture by a plotting library is a bitmap or an SVG with colours of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

_LEFT, _RIGHT, _BOTTOM, _TOP = 52, 16, 22, 8
# Sources that are named here have the same colour on every page; style.css gives it.
_KNOWN = ("pubmed", "pmc", "clinical_trials", "clinical_notes", "patents", "text")
_SPARE = 3


def colours(sources: Sequence[str]) -> dict[str, str]:
    """A CSS class for every source; see style.css for what it looks like."""
    others = [source for source in sources if source not in _KNOWN]
    return {
        source: f"c{_KNOWN.index(source)}"
        if source in _KNOWN
        else f"c{len(_KNOWN) + others.index(source) % _SPARE}"
        for source in sources
    }


def columns(
    labels: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    classes: Mapping[str, str],
    size: tuple[int, int] = (1040, 220),
    shares: bool = False,
) -> Markup:
    """Stacked columns, one for each label.

    Args:
        rows: "source" and "counts", one count for each label.
        shares: the axis tells shares of all counts, in percent.
    """
    width, height = size
    totals = [sum(row["counts"][place] for row in rows) for place in range(len(labels))]
    whole, top = sum(totals) or 1, max([*totals, 1])
    step = (width - _LEFT - _RIGHT) / max(len(labels), 1)
    scale = (height - _TOP - _BOTTOM) / top
    parts = [_grid(size, top, whole if shares else None)]
    for place, label in enumerate(labels):
        x, y = _LEFT + place * step, height - _BOTTOM
        for row in rows:
            count = row["counts"][place]
            if not count:
                continue
            tall = max(count * scale, 0.7)
            y -= tall
            parts.append(
                Markup(
                    '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
                    "<title>{} {}: {:,}</title></rect>"
                ).format(
                    classes[row["source"]],
                    x + step * 0.08,
                    y,
                    step * 0.84,
                    tall,
                    label,
                    row["source"],
                    count,
                )
            )
    parts += _labels(labels, step, height)
    return _svg(size, parts)


def scale_of_tokens(
    marks: Sequence[tuple[str, float, str]], band: tuple[str, float, float]
) -> Markup:
    """Numbers of tokens on one logarithmic line.

    Args:
        marks: (text, tokens, CSS class); each is written above the line or below, in turn.
        band: (text, from, to), drawn as a stretch of the line.
    """
    size = width, height = 1040, 150
    values = [value for _, value, _ in marks if value > 0]
    first = math.floor(math.log10(min([*values, band[1]])))
    last = math.ceil(math.log10(max([*values, band[2]])))

    def place(value: float) -> float:
        return 40 + (width - 80) * (math.log10(value) - first) / max(last - first, 1)

    line = height / 2
    parts = [
        Markup('<line class="axis" x1="30" x2="{}" y1="{}" y2="{}"/>').format(
            width - 30, line, line
        )
    ]
    for power in range(first, last + 1):
        x = place(10.0**power)
        parts.append(_tick(x, line, compact(10.0**power)))
    x, end = place(band[1]), place(band[2])
    parts.append(
        Markup('<rect class="band" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="16"/>').format(
            x, line - 8, end - x
        )
    )
    parts.append(_note((x + end) / 2, line - 38, band[0], "quiet", width))
    for number, (text, value, style) in enumerate(m for m in marks if m[1] > 0):
        parts.append(
            Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="7"/>').format(
                style, place(value), line
            )
        )
        below = number % 2 == 0
        parts.append(_note(place(value), line + 48 if below else line - 20, text, "", width))
    return _svg(size, parts)


def compact(value: float) -> str:
    """A number in three digits: 950, 12.3 k, 4 T."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            scaled = value / size
            digits = max(0, 2 - int(math.log10(abs(scaled)) + 1e-9))
            text = f"{scaled:.{digits}f}"
            return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {unit}"
    return f"{value:.0f}"


def _grid(size: tuple[int, int], top: float, whole: float | None) -> Markup:
    width, height = size
    lines = []
    for step in _steps(top / whole if whole else top):
        y = height - _BOTTOM - (height - _TOP - _BOTTOM) * step * (whole or 1) / top
        text = f"{step:.0%}" if whole else compact(step)
        lines.append(
            Markup(
                '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
                '<text class="quiet" x="{}" y="{:.1f}" text-anchor="end">{}</text>'
            ).format(_LEFT, width - _RIGHT, y, y, _LEFT - 6, y + 4, text)
        )
    return Markup("").join(lines)


def _steps(top: float) -> list[float]:
    """Round values from 0 to `top`, three to five of them."""
    size = 10 ** math.floor(math.log10(top))
    step = next(s * size for s in (0.2, 0.25, 0.5, 1, 2) if top / (s * size) < 5)
    return [number * step for number in range(int(top / step + 1e-9) + 1)]


def _labels(labels: Sequence[str], step: float, height: int) -> list[Markup]:
    """As many labels as there is room for, below the columns."""
    widest = max((len(label) for label in labels), default=1) * 8 + 10
    every = max(1, math.ceil(widest / step))
    return [
        Markup('<text class="quiet" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            _LEFT + (place + 0.5) * step, height - 5, label
        )
        for place, label in enumerate(labels)
        if place % every == 0
    ]


def _tick(x: float, y: float, text: str) -> Markup:
    return Markup(
        '<line class="axis" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>'
        '<text class="quiet" x="{0:.1f}" y="{3:.1f}" text-anchor="middle">{4}</text>'
    ).format(x, y - 4, y + 4, y + 24, text)


def _note(x: float, y: float, text: str, style: str, width: int) -> Markup:
    anchor = "start" if x < 180 else "end" if x > width - 180 else "middle"
    x = max(x - 8, 4) if anchor == "start" else min(x + 8, width - 4) if anchor == "end" else x
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        style, x, y, anchor, text
    )


def _svg(size: tuple[int, int], parts: Sequence[Markup]) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img">{}</svg>').format(
        *size, Markup("").join(parts)
    )
