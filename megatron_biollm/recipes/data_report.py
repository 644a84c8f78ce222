"""Figures of the benchmark of data beside their bars, and its tables."""

from typing import Any, Optional

OURS, PEER = "ours", "core"
TIMES_BETTER, MOST_WAITING = 5.0, 0.01


def loading_rows(found: list[dict[str, Any]], needed: float) -> list[dict[str, Any]]:
    """needed: tokens a second of a rank."""
    rows = []
    for one in found:
        name = f"{'cold' if one['cold'] else 'warm'}, {one['num_workers']} workers"
        waited, rate = one["pace"]["waited_share"], one["full"]["tokens_per_second"]
        rows.append(row(f"loading, tokens/s of a rank, {name}", rate, needed, rate / needed, 1.0))
        rows.append(
            row(f"loading, share of time waited, {name}", waited, None, None, MOST_WAITING)
            | {"met": waited <= MOST_WAITING}
        )
    return rows


def opening_rows(sides: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many times less ours takes than core."""
    by = {(one["what"], one["side"]): one for one in sides}
    figures = {
        "wall_s": "whole process, s",
        "cpu_s": "CPU, s",
        "work_s": "without imports, s",
        "anonymous_bytes": "memory held, bytes",
        "resident_bytes": "memory resident, bytes",
    }
    rows = []
    for what, said in (("build", "indexed"), ("open", "opened again, first sample")):
        ours, peer = by[what, OURS], by[what, PEER]
        for name, unit in figures.items():
            ratio = peer[name] / ours[name]
            rows.append(row(f"{said}, {unit}", ours[name], peer[name], ratio, TIMES_BETTER))
    return rows


def row(
    name: str, ours: float, peer: Optional[float], ratio: Optional[float], bar: float
) -> dict[str, Any]:
    """A figure beside its bar; ratio: how many times better ours is."""
    met = ratio is not None and ratio >= bar
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "bar": bar, "met": met}


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    options, compared = report["options"], report["compared"]
    batches = map(str, report["micro_batches"])
    head = (
        f"{report['date']}, {report['hardware']}, {report['cores']} cores, megatron-core "
        f"{report['versions']['megatron-core']}. Opening: {options['shards']:,} shards with "
        f"{options['documents']:,} documents, {options['repeats']} processes of each side. "
        f"Loading: {options['megatokens']} M ids, a step of {' x '.join(batches)} "
        f"samples every {report['step_s']:.3f} s."
    )
    lines = [
        head,
        "",
        "| | ours | core or needed | ratio | bar | met |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for one in report["rows"]:
        cells = [_number(one[name]) for name in ("ours", "peer", "ratio", "bar")]
        lines.append(f"| {one['name']} | {' | '.join(cells)} | {'yes' if one['met'] else 'no'} |")
    lines += ["", "| loading | first wait (s) | median (ms) | p99 (ms) | max (ms) | of a core |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for one in report["loading"]:
        name = f"{'cold' if one['cold'] else 'warm'}, {one['num_workers']} workers"
        pace = one["pace"]
        waits = [1e3 * pace[f"{which}_wait_s"] for which in ("median", "p99", "max")]
        cells = [f"{pace['first_wait_s']:.2f}", *(f"{wait:.1f}" for wait in waits)]
        cpu = pace["cpu_s_per_step"] / report["step_s"]
        lines.append(f"| {name} | {' | '.join(cells)} | {cpu:.1%} |")
    same = (
        f"Identical to core's, number by number: document, sample and shuffle index of "
        f"{compared['shards_and_splits']:,} shards and splits, {compared['documents']:,} "
        f"documents, {compared['samples']:,} samples."
    )
    return "\n".join([*lines, "", same])


def _number(value: Optional[float]) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
