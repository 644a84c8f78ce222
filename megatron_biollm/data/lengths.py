"""How long the documents of a corpus are: exact figures in bounded memory, and a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from megatron_biollm.atomic import whole_file
from megatron_biollm.config import UserError

# Lengths up to here are counted one by one. Of longer ones there are few: a trillion tokens hold
# less than a million of them, so they are kept as they are.
_COUNTED = 1 << 20
PICTURES = (".png", ".pdf", ".svg")
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_BAR = 40


class Lengths:
    """Lengths of documents, in tokens or characters; of 8 MiB, whatever their number."""

    def __init__(self) -> None:
        self.counts = np.zeros(_COUNTED + 1, np.int64)
        self.longer: list[np.ndarray] = []

    def add(self, lengths: np.ndarray) -> None:
        """Counts the lengths of some more documents."""
        within = lengths[lengths <= _COUNTED]
        if len(within):
            counted = np.bincount(within)
            self.counts[: len(counted)] += counted
        if len(within) < len(lengths):
            self.longer.append(np.sort(lengths[lengths > _COUNTED]).astype(np.int64))

    @property
    def documents(self) -> int:
        return int(self.counts.sum()) + sum(map(len, self.longer))

    @property
    def total(self) -> int:
        """All lengths together."""
        within = int(self.counts @ np.arange(len(self.counts)))
        return within + sum(int(part.sum()) for part in self.longer)

    @property
    def empty(self) -> int:
        return int(self.counts[0])

    def quantiles(self, shares: list[float]) -> list[int]:
        """The length that each share of the documents does not exceed; 0 for no document."""
        values, counts = self.table()
        if not len(values):
            return [0] * len(shares)
        ranks = np.ceil(np.array(shares) * counts.sum()).astype(np.int64).clip(min=1)
        return values[np.searchsorted(np.cumsum(counts), ranks)].tolist()

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """The lengths that occur, in order, and how many documents have each."""
        values = np.flatnonzero(self.counts)
        counts = self.counts[values]
        if self.longer:
            more, more_counts = np.unique(np.concatenate(self.longer), return_counts=True)
            values, counts = np.concatenate([values, more]), np.concatenate([counts, more_counts])
        return values, counts

    def bins(self) -> list[tuple[int, int, int]]:
        """Bins that double: first length, documents, their lengths together; 0 is apart."""
        values, counts = self.table()
        numbers = np.where(values, np.frexp(values)[1], 0)
        found = []
        for number in range(int(numbers.min()), int(numbers.max()) + 1) if len(values) else ():
            here = numbers == number
            first = 1 << number >> 1
            own = counts[here]
            found.append((first, int(own.sum()), int(own @ values[here])))
        return found

    def summary(self) -> dict[str, Any]:
        """Plain values: documents, empty ones, total, mean, quantiles, bins."""
        documents, total = self.documents, self.total
        low, *middle, high = self.quantiles([0.0, 0.1, 0.5, 0.9, 0.99, 1.0])
        return {
            "documents": documents,
            "empty": self.empty,
            "total": total,
            "mean": total / documents if documents else 0.0,
            "min": low,
            **dict(zip(("p10", "median", "p90", "p99"), middle, strict=True)),
            "max": high,
            "bins": [
                dict(zip(("from", "documents", "total"), b, strict=True)) for b in self.bins()
            ],
        }


def histogram(lengths: Lengths, unit: str) -> list[str]:
    """Lines with one bar for each bin; a second number is the share of all `unit` in it."""
    bins, documents, total = lengths.bins(), lengths.documents or 1, lengths.total or 1
    most = max((count for _, count, _ in bins), default=1)
    lines = [f"{'from ' + unit:>16} {'documents':>12} {'share':>7} {'of ' + unit:>14}"]
    for first, count, own in bins:
        bar = "#" * max(round(_BAR * count / most), 1 if count else 0)
        line = f"{first:>16,} {count:>12,} {count / documents:>7.1%} {own / total:>14.1%}  {bar}"
        lines.append(line.rstrip())
    return lines


def plot_lengths(lengths: Mapping[str, Lengths], unit: str, output: Path | str) -> Path:
    """Draws the lengths of several corpora into PNG, PDF or SVG, replacing it in one move.

    Left: shares of documents. Right: shares of all tokens (or characters) that stand in documents
    of at most that length, which is what a context length cuts.

    Raises:
        UserError: the name has another ending.
    """
    output = Path(output)
    if output.suffix.lower() not in PICTURES:
        raise UserError(f"output {output} is none of {', '.join(PICTURES)}; give it such an ending")
    figure = _draw(lengths, unit)
    with whole_file(output) as file:
        figure.savefig(file, format=output.suffix[1:].lower(), dpi=150)
    return output


def _draw(lengths: Mapping[str, Lengths], unit: str) -> Any:
    """The figure itself, without a window or any global state of matplotlib."""
    from matplotlib.figure import Figure  # takes a second, so not before it is needed

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, (label, own) in enumerate(lengths.items()):
        style = {"color": _COLOURS[number % len(_COLOURS)], "label": label, "linewidth": 1.8}
        style["linestyle"] = ("-", "--", ":")[number // len(_COLOURS) % 3]
        values, counts = own.table()
        if not len(values) or not own.total:
            continue
        edges, shares = _doubling(own)
        left.stairs(shares, edges, **style)
        right.plot(values, np.cumsum(values * counts) / own.total, **style)
    left.set(ylabel="share of documents", title="Documents by length")
    right.set(
        ylabel=f"share of all {unit}", title=f"{unit.capitalize()} in documents up to a length"
    )
    for axes in (left, right):
        _dress(axes, f"length of a document ({unit})")
    right.legend(loc="upper left", frameon=False)
    return figure


def _doubling(lengths: Lengths) -> tuple[list[float], list[float]]:
    """Edges of the bins and shares of documents; empty documents lie left of a length of 1."""
    bins = lengths.bins()
    edges = [max(first, 0.5) for first, _, _ in bins]
    return [*edges, edges[-1] * 2], [count / lengths.documents for _, count, _ in bins]


def _dress(axes: Any, label: str) -> None:
    from matplotlib.ticker import FuncFormatter, PercentFormatter

    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _binary(value)))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel(label)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _binary(value: float) -> str:
    """A power of two as people write it: 512, 4k, 1M."""
    for unit, size in (("G", 1 << 30), ("M", 1 << 20), ("k", 1 << 10)):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
