"""The report of a rehearsal on one page."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from megatron_biollm.rehearsal.memory import CATEGORIES
from megatron_biollm.rehearsal.rules import Broken


def table(report: dict[str, Any]) -> str:
    """The report on one page."""
    lines = [*_head(report), "", *_memory(report), "", *_traffic(report)]
    if "checkpoint" in report:
        lines += ["", *_saves(report["checkpoint"])]
    return "\n".join([*lines, "", *_verdict(report)])


def _head(report: dict[str, Any]) -> Iterable[str]:
    counts = report["microbatches"]
    repeated = (
        ""
        if counts["rehearsed"] == counts["step"]
        else f" ({counts['rehearsed']} rehearsed, the rest by the steady state's straight line)"
    )
    return [
        f"{report['layout']}, {report['world_size']} ranks, {report['parameters']:,} parameters; "
        f"layers: {report['layers']}",
        f"{counts['step']} micro-batches a step{repeated}",
    ]


def _memory(report: dict[str, Any]) -> Iterable[str]:
    largest = max(row["peak"]["total"] for row in report["ranks"])
    unit, size = ("GiB", 2**30) if largest >= 2**30 else ("MiB", 2**20)
    yield f"Peak memory in {unit}, TFLOP a step and rank"
    names = (*CATEGORIES, "total")
    yield "".join(f"{name:>12}" for name in ("rank", "pp", *names, "planner", "differs", "TFLOP"))
    for row in report["ranks"]:
        sizes = [f"{row['peak'][name] / size:12.2f}" for name in names]
        planned = row["planner_bytes"]
        plan = [f"{'-':>12}"] * 2
        if planned is not None:
            differs = planned / row["peak"]["total"] - 1
            plan = [f"{planned / size:12.2f}", f"{differs:+12.1%}"]
        place = f"{row['rank']:12}{row['coordinates']['pp']:12}"
        yield place + "".join([*sizes, *plan]) + f"{row['flops'] / 1e12:12.1f}"


def _traffic(report: dict[str, Any]) -> Iterable[str]:
    yield "Collectives of a step: calls, payload and bytes that leave a GPU (ring), mean of ranks"
    totals: dict[tuple, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for row in report["collectives"]:
        total = totals[(row["group"], row["operation"], row["size"])]
        for index, name in enumerate(("calls", "bytes", "sent_bytes")):
            total[index] += row[name] / len(report["ranks"])
    head = f"{'group':>8}{'ranks':>7}  {'operation':<16}{'calls':>12}"
    yield head + f"{'payload MB':>14}{'sent MB':>12}"
    for (group, operation, size), (calls, payload, sent) in sorted(totals.items(), key=str):
        yield (
            f"{group:>8}{size:>7}  {operation:<16}{calls:12,.1f}"
            f"{payload / 1e6:14,.1f}{sent / 1e6:12,.1f}"
        )


def _saves(formats: dict[str, Any]) -> Iterable[str]:
    for name, row in formats.items():
        yield (
            f"Checkpoint, {name}: {row['bytes'] / 1e9:,.1f} GB in {row['tensors']} tensors; a rank "
            f"writes {row['smallest_rank_bytes'] / 1e9:.2f} to "
            f"{row['largest_rank_bytes'] / 1e9:.2f} GB"
        )


def _verdict(report: dict[str, Any]) -> Iterable[str]:
    for row in report["broken"]:
        broken = Broken(row["rank"], row["found"], row["rule"], row["remedy"])
        yield f"BROKEN: {broken.describe(row['coordinates'])}"
    if not report["broken"]:
        yield "Every rule holds on every rank."
