"""The loss curve of one run or several, drawn from their metrics.jsonl."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from megatron_biollm.atomic import whole_file
from megatron_biollm.config import UserError
from megatron_biollm.rows import read_rows

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#7a7a7a"
# What was done about a step that was not healthy.
MARKERS = {"report": "o", "skip": "X", "rewind": "<", "stop": "s"}
SUFFIXES = (".png", ".pdf", ".svg")

Points = list[tuple[int, float]]


@dataclass(frozen=True)
class Curve:
    """What a run's rows say over its steps; rows without a number leave no point.

    Attributes:
        name: the run folder's name.
        loss, validation_loss, learning_rate: (step, value) in order.
        layouts: (first step, layout) of each stretch trained in one layout.
        incidents: (step, action) of steps that were not healthy: report, skip, rewind or stop.
    """

    name: str
    loss: Points
    validation_loss: Points
    learning_rate: Points
    layouts: list[tuple[int, str]]
    incidents: list[tuple[int, str]]


def read_curve(run_dir: Path | str) -> Curve:
    """Reads ``metrics.jsonl`` of a run, and ``incidents.jsonl`` where there is one.

    Raises:
        UserError: there are no metrics, or they have no loss.
    """
    path = Path(run_dir) / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the run_dir of a run that has trained")
    rows = read_rows(path)
    curve = Curve(
        name=Path(run_dir).resolve().name,
        loss=_points(rows, "loss"),
        validation_loss=_points(rows, "validation_loss"),
        learning_rate=_points(rows, "learning_rate"),
        layouts=_stretches(rows),
        incidents=_incidents(Path(run_dir) / "incidents.jsonl"),
    )
    if not curve.loss:
        raise UserError(f"{path} has no row with a loss; let the run finish a step first")
    return curve


def plot_runs(run_dirs: list[Path | str], output: Path | str) -> Path:
    """Draws the runs into ``output`` (PNG, PDF or SVG), replacing it in one move.

    One run is shown in full: raw and smoothed training loss, validation loss, learning rate,
    a mark wherever it was resumed in another layout, and one at every incident. Several
    runs share the axes, with their smoothed and validation losses only.
    """
    output = Path(output)
    if output.suffix.lower() not in SUFFIXES:
        raise UserError(f"output {output} is none of {', '.join(SUFFIXES)}; give it such an ending")
    figure = draw([read_curve(run_dir) for run_dir in run_dirs])
    with whole_file(output) as file:
        figure.savefig(file, format=output.suffix[1:].lower(), dpi=150)
    return output


def draw(curves: list[Curve]) -> Figure:
    """The figure itself, without a window or any global state of matplotlib."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(", ".join(curve.name for curve in curves), fontsize=11, loc="left", pad=10)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per token)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    for index, curve in enumerate(curves):
        _draw_loss(axes, curve, COLOURS[index % len(COLOURS)], alone=len(curves) == 1)
    axes.set_xlim(*_step_range(curves))
    extra = _draw_details(axes, curves[0]) if len(curves) == 1 else []
    # Marks are in the axes' own list already.
    handles = list(dict.fromkeys(axes.get_legend_handles_labels()[0] + extra))
    axes.legend(handles=handles, loc="upper right", frameon=True, framealpha=0.9, edgecolor="none")
    return figure


def smooth(points: Points, span: int) -> Points:
    """Mean over the ``span`` points around each one, so that the curve does not lag behind.

    The window narrows towards the first point, where the loss falls fastest, and is cut off at
    the last one, where it is what remains of it.
    """
    smoothed = []
    for index, (step, _) in enumerate(points):
        reach = min(span // 2, index)
        window = [value for _, value in points[index - reach : index + reach + 1]]
        smoothed.append((step, sum(window) / len(window)))
    return smoothed


def _draw_loss(axes: Axes, curve: Curve, colour: str, alone: bool) -> None:
    line = smooth(curve.loss, span=len(curve.loss) // 20)
    prefix = "" if alone else f"{curve.name}: "
    if alone:
        axes.plot(*zip(*curve.loss, strict=True), color=colour, alpha=0.28, linewidth=0.8)
    label = f"{prefix}training loss, smoothed ({line[-1][1]:.3f} at the end)"
    axes.plot(*zip(*line, strict=True), color=colour, linewidth=1.8, label=label)
    if curve.validation_loss:
        axes.plot(
            *zip(*curve.validation_loss, strict=True),
            color=COLOURS[1] if alone else colour,
            marker="o",
            markersize=4.5,
            markeredgecolor="white",
            linewidth=0.9,
            linestyle="--",
            label=f"{prefix}validation loss ({curve.validation_loss[-1][1]:.3f} at the end)",
        )


def _draw_details(axes: Axes, curve: Curve) -> list:
    """Learning rate on the right, layouts and incidents below; gives the legend's handles."""
    marks = _draw_incidents(axes, curve)
    for start, layout in curve.layouts if len(curve.layouts) > 1 else []:
        if start > curve.loss[0][0]:
            axes.axvline(start, color=GREY, linewidth=0.9, linestyle=":")
        axes.annotate(
            layout,
            xy=(start, 0.01),
            xycoords=("data", "axes fraction"),
            xytext=(4, 3),
            textcoords="offset points",
            fontsize=8,
            color="#505050",
        )
    if not curve.learning_rate:
        return marks
    right = axes.twinx()
    right.spines["top"].set_visible(False)
    right.spines["right"].set_color(GREY)
    right.set_ylabel("learning rate", color=GREY)
    right.tick_params(axis="y", colors=GREY)
    right.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
    lines = right.plot(
        *zip(*curve.learning_rate, strict=True),
        color=GREY,
        alpha=0.7,
        linewidth=0.9,
        label="learning rate",
    )
    right.set_ylim(bottom=0)
    # The losses stay in front of it.
    axes.set_zorder(right.get_zorder() + 1)
    axes.patch.set_visible(False)
    return [*marks, *lines]


def _draw_incidents(axes: Axes, curve: Curve) -> list:
    """A mark below the curve at each step that was not healthy, in its action's form."""
    handles = []
    for action, marker in MARKERS.items():
        steps = [step for step, taken in curve.incidents if taken == action]
        if not steps:
            continue
        handles += axes.plot(
            steps,
            [0.08] * len(steps),
            transform=axes.get_xaxis_transform(),
            color=COLOURS[4],
            markeredgecolor="black",
            markeredgewidth=0.5,
            marker=marker,
            linestyle="none",
            label=f"{action} ({len(steps)})",
        )
    return handles


def _points(rows: list[dict], key: str) -> Points:
    return [(row["step"], row[key]) for row in rows if row.get(key) is not None]


def _stretches(rows: list[dict]) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for row in rows:
        layout = row.get("layout")
        if layout is not None and (not found or found[-1][1] != layout):
            found.append((row["step"], str(layout)))
    return found


def _incidents(path: Path) -> list[tuple[int, str]]:
    """Those of the run as it went on; a rewind too, though the run has gone back over its step."""
    rows = read_rows(path) if path.is_file() else []
    kept = (row for row in rows if row["action"] == "rewind" or not row.get("superseded"))
    return [(row["step"], row["action"]) for row in kept]


def _step_range(curves: list[Curve]) -> tuple[float, float]:
    first = min(curve.loss[0][0] for curve in curves)
    last = max(curve.loss[-1][0] for curve in curves)
    margin = 0.01 * (last - first) or 1.0
    return first - margin, last + margin
