"""Scores as pictures: all benchmarks with intervals, over checkpoints, and models compared."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from megatron_biollm.atomic import whole_file
from megatron_biollm.evaluation.comparison import Comparison
from megatron_biollm.evaluation.published import Published
from megatron_biollm.evaluation.report_tables import TASKS, is_share
from megatron_biollm.evaluation.results import ModelResults, Result

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#8a8a8a"
_COLUMNS = 3


def draw_scores(models: Sequence[ModelResults], published: Sequence[Published]) -> Figure:
    """A row for each benchmark: our models with intervals, chance, and published scores in grey."""
    rows = _rows(models)
    figure = Figure(figsize=(9, 1.4 + 0.2 * len(rows) * (1 + len(models))), layout="constrained")
    axes = figure.subplots()
    for y, one in enumerate(rows):
        others = [100 * p.value for p in published if p.benchmark == one.benchmark]
        axes.plot(others, [y] * len(others), "D", color=GREY, markersize=4, mfc="none")
        if one.chance is not None:
            axes.plot([100 * one.chance] * 2, [y - 0.4, y + 0.4], color="black", lw=1)
    for place, model in enumerate(models):
        _dots(axes, model, rows, place, len(models))
    _legend(axes, models)
    axes.set_yticks(range(len(rows)), [one.title for one in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(-1.5, 101.5)
    _separate_tasks(axes, rows)
    axes.set_xlabel("score, %")
    _plain(axes, "x")
    return figure


def draw_curves(rows: Sequence[dict[str, Any]], titles: dict[str, str]) -> Figure:
    """A small picture for each benchmark: its score over the tokens seen, with its interval.

    titles: of benchmarks, by name.
    """
    names = list(dict.fromkeys(row["benchmark"] for row in rows))
    columns = min(_COLUMNS, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(3.3 * columns + 0.6, 2.4 * lines + 0.3), layout="constrained")
    grid = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes, name in zip(grid, names, strict=False):
        _curve(axes, [row for row in rows if row["benchmark"] == name], titles.get(name, name))
    for axes in grid[len(names) :]:
        axes.set_visible(False)
    figure.supxlabel("tokens seen", fontsize=9)
    shares = all(is_share(row.get("headline") or "") for row in rows)
    figure.supylabel("score, %" if shares else "score, % or as named", fontsize=9)
    return figure


def draw_comparison(comparisons: Sequence[Comparison]) -> Figure:
    """A row for each benchmark: how far each later model is ahead of the first."""
    made = [one for one in comparisons if one.difference]
    titles = list(dict.fromkeys(one.title for one in made))
    seconds = list(dict.fromkeys(one.second for one in made))
    figure = Figure(
        figsize=(9, 1.3 + 0.3 * len(titles) * len(seconds) ** 0.5), layout="constrained"
    )
    axes = figure.subplots()
    axes.axvline(0, color="black", lw=1)
    for one in made:
        place = seconds.index(one.second)
        y, gap = titles.index(one.title) + _shift(place, len(seconds)), one.difference
        sure = one.p_holm < 0.05
        colour = COLOURS[(place + 1) % len(COLOURS)]
        axes.plot([100 * gap.low, 100 * gap.high], [y, y], color=colour, lw=1.6)
        axes.plot(100 * gap.value, y, "o", color=colour, ms=6, mfc=colour if sure else "white")
    for place, name in enumerate(seconds):
        label = f"{name} minus {made[0].first}"
        axes.plot([], [], "o-", color=COLOURS[(place + 1) % len(COLOURS)], label=label)
    axes.plot([], [], "o", color=GREY, mfc="white", label="p ≥ 0.05 (Holm)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False, fontsize=9)
    axes.set_yticks(range(len(titles)), titles)
    axes.set_ylim(len(titles) - 0.4, -0.6)
    axes.set_xlabel("difference of scores, percentage points")
    _plain(axes, "x")
    return figure


def as_svg(figure: Figure) -> bytes:
    """The picture as SVG, the same bytes every time."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "megatron_biollm", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def write_png(figure: Figure, path: Path) -> None:
    """Writes the picture in one move."""
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=150)


def _rows(models: Sequence[ModelResults]) -> list[Result]:
    found = {one.benchmark: one for model in reversed(models) for one in model.results}
    known = list(TASKS)
    rows = [one for one in found.values() if one.task in known]
    return sorted(rows, key=lambda one: known.index(one.task))


def _dots(axes: Axes, model: ModelResults, rows: Sequence[Result], place: int, count: int) -> None:
    colour = COLOURS[place % len(COLOURS)]
    for y, row in enumerate(rows):
        one = model.get(row.benchmark)
        if one is None:
            continue
        at, score = y + _shift(place, count), one.main
        axes.plot([100 * score.low, 100 * score.high], [at, at], color=colour, lw=1.8)
        axes.plot(100 * score.value, at, "o", color=colour, markersize=5)


def _shift(place: int, count: int) -> float:
    """Where in a benchmark's row one of several models stands."""
    return 0.6 * ((place + 0.5) / count - 0.5)


def _legend(axes: Axes, models: Sequence[ModelResults]) -> None:
    for place, model in enumerate(models):
        axes.plot([], [], "o-", color=COLOURS[place % len(COLOURS)], label=model.model)
    axes.plot([], [], "|", color="black", markersize=10, label="guessing")
    axes.plot([], [], "D", color=GREY, mfc="none", markersize=4, label="published")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False, fontsize=9)


def _separate_tasks(axes: Axes, rows: Sequence[Result]) -> None:
    for y in range(1, len(rows)):
        if rows[y].task != rows[y - 1].task:
            axes.axhline(y - 0.5, color="#c8c8c8", lw=0.8)


def _curve(axes: Axes, rows: Sequence[dict[str, Any]], title: str) -> None:
    tokens = [row["consumed_tokens"] for row in rows]
    headline = rows[0].get("headline") or ""
    scale = 100 if is_share(headline) else 1
    values = {key: [scale * row[key] for row in rows] for key in ("score", "low", "high")}
    axes.fill_between(tokens, values["low"], values["high"], color=COLOURS[0], alpha=0.2, lw=0)
    axes.plot(tokens, values["score"], "o-", color=COLOURS[0], markersize=3, lw=1.3)
    chance = next((row["chance"] for row in rows if row.get("chance") is not None), None)
    if chance is not None:
        axes.axhline(100 * chance, color="black", lw=0.8, ls="--")
    unit = "" if is_share(headline) else f", {headline.replace('_', ' ')}"
    axes.set_title(title + unit, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tokens(value)))
    axes.tick_params(labelsize=8)
    _plain(axes, "y")


def _tokens(value: float) -> str:
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _plain(axes: Axes, grid: str) -> None:
    axes.grid(axis=grid, color="#e4e4e4", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
