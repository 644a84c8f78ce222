"""What a benchmark must reach, and whether it did."""

from dataclasses import asdict, dataclass
from typing import Any, Optional


@dataclass(frozen=True)
class Bar:
    """One figure and its bar.

    Attributes:
        name: of the figure.
        value: measured; None where it could not be.
        bar: that it must reach.
        at_least: the figure must not be below the bar; else not above it.
    """

    name: str
    value: Optional[float]
    bar: float
    at_least: bool = True

    @property
    def met(self) -> Optional[bool]:
        """None where nothing was measured."""
        if self.value is None:
            return None
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def row(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "met": self.met}


def least(name: str, value: Optional[float], bar: float) -> Bar:
    """A figure that must not be below its bar."""
    return Bar(name, value, bar)


def most(name: str, value: Optional[float], bar: float) -> Bar:
    """A figure that must not be above its bar."""
    return Bar(name, value, bar, at_least=False)


def bars_table(rows: list[dict[str, Any]]) -> str:
    """Bars as Markdown; what was not measured stays empty. `benchmark` of a row says where its
    figure is from, where there are several."""
    first, rule = ("| benchmark ", "|---") if any("benchmark" in row for row in rows) else ("", "")
    lines = [f"{first}| figure | measured | bar | met |", f"{rule}|---|---:|---:|---|"]
    for row in rows:
        sign = "≥" if row.get("at_least", True) else "≤"
        value = "" if row["value"] is None else f"{row['value']:.3g}"
        met = {None: "", True: "yes", False: "no"}[row["met"]]
        of = f"| {row['benchmark']} " if first else ""
        lines.append(f"{of}| {row['name']} | {value} | {sign} {row['bar']:.3g} | {met} |")
    return "\n".join(lines)
