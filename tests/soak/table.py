"""The report of a soak: JSON to keep, Markdown to read."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from tests.soak.harness import RunResult
from tests.soak.plan import TITLES

Report = dict[str, Any]


def make_report(results: Iterable[RunResult], **about: Any) -> Report:
    """What is kept of a soak; `about` says how and where it was made."""
    faults, runs = [], []
    for result in results:
        plan, verdict = result.plan, result.verdict
        faults += [asdict(fault) for fault in result.faults]
        runs.append(
            {
                "run": plan.number,
                "layout": " ".join(f"{k}={v}" for k, v in plan.layout.items()),
                "options": list(plan.options),
                "on_non_finite": plan.on_non_finite,
                "on_save_failure": plan.on_save_failure,
                "train_iters": plan.train_iters,
                "starts": result.starts,
                "starts_by_hand": result.starts_by_hand,
                "seconds": round(result.seconds, 1),
                **asdict(verdict),
            }
        )
    return {**about, "faults": faults, "runs": runs}


def add_to_report(earlier: Report, report: Report) -> Report:
    """Both together, in the order of the plan."""
    faults = sorted([*earlier["faults"], *report["faults"]], key=lambda row: row["number"])
    runs = sorted([*earlier["runs"], *report["runs"]], key=lambda row: row["run"])
    return {**report, "faults": faults, "runs": runs}


def is_good(report: Report) -> bool:
    """Every fault was got over as promised, and every run is as its twin."""
    recovered = all(fault["verdict"] == "recovered" for fault in report["faults"])
    return recovered and not any(run["problems"] for run in report["runs"])


def markdown(report: Report) -> str:
    """Both tables."""
    return "\n".join([*_fault_table(report), "", *_run_table(report)])


def _fault_table(report: Report) -> Iterator[str]:
    yield "| | run | fault | victim | step | what was seen | s | verdict |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in report["faults"]:
        kind = TITLES[row["kind"]]
        if row["moment"] in ("save", "down", "running") and row["kind"] != "disk_full":
            kind += {"save": ", during a save", "down": ", ranks dead", "running": ", running"}[
                row["moment"]
            ]
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        yield (
            f"| {row['number']} | {row['run']} | {kind} | {row['victim']} | {row['step']} "
            f"| {row['observed']} | {seconds} | {row['verdict']} |"
        )


def _run_table(report: Report) -> Iterator[str]:
    yield "| run | layout | starts | by hand | end | last loss | to the bit | books | verdict |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for run in report["runs"]:
        verdict = "; ".join(run["problems"]) or "as promised"
        loss = "" if run["loss"] is None else f"{run['loss']:.6f}"
        yield (
            f"| {run['run']} | {run['layout']} | {run['starts']} | {len(run['starts_by_hand'])} "
            f"| {run['state']}, {run['step']} | {loss} | {run['equal']} "
            f"| {run['ledger']} | {verdict} |"
        )
