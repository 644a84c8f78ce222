"""Figures of the benchmark of data beside their bars, and its tables."""

from typing import Any, Optional

OURS, PEER = "ours", "core"
TIMES_BETTER, MOST_WAITING = 5.0, 0.01
_SAID = {True: "yes", False: "no", None: ""}
# What is said of a figure, and where it is judged.
_FIGURES = {
    "wall_s": ("seconds of the whole process", ["build"]),
    "cpu_s": ("seconds of CPU", []),
    "work_s": ("seconds without imports", ["open"]),
    "anonymous_bytes": ("bytes held by the process", ["build"]),
    "own_bytes": ("bytes held beyond the imports", ["open"]),
    "resident_bytes": ("bytes with mapped pages", []),
}


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
    """How many times less ours takes than core.

    Both are judged by time and memory: indexing as a whole process, since ours needs neither torch
    nor core, opening without the imports, which the run needs anyway.
    """
    by = {(one["what"], one["side"]): _with_own_memory(one) for one in sides}
    rows = []
    for what, said in (("build", "indexed"), ("open", "opened again, to the first sample")):
        ours, peer = by[what, OURS], by[what, PEER]
        for name, (unit, judged) in _FIGURES.items():
            bar = TIMES_BETTER if what in judged else None
            rows.append(
                row(f"{said}: {unit}", ours[name], peer[name], peer[name] / ours[name], bar)
            )
    return rows


def _with_own_memory(side: dict[str, Any]) -> dict[str, Any]:
    own = side["anonymous_bytes"] - side["imports_anonymous"]
    return side | {"own_bytes": max(own, 2**20)}  # less than a mebibyte is chance


def row(
    name: str,
    ours: float,
    peer: Optional[float],
    ratio: Optional[float],
    bar: Optional[float],
) -> dict[str, Any]:
    """A figure beside its bar, if it has one; ratio: how many times better ours is."""
    met = None if bar is None or ratio is None else ratio >= bar
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
        lines.append(f"| {one['name']} | {' | '.join(cells)} | {_SAID[one['met']]} |")
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
