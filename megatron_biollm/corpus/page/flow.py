"""The way of the records through the steps: by source, by reason, by file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

# What a page can show; all are counted, and all are in report.json.
SHOWN_FILES = 300

Report = dict[str, Any]


def stages(report: Report, source: str) -> list[dict[str, Any]]:
    """What was left of a source's records after each step, from the first to the last.

    Each stage: name, came, left, dropped (by reason), characters (None where not counted), and
    share, kept of all records met. The first one is the reading of the files.
    """
    flows = [flow for flow in report["flows"] if flow["came"].get(source)]
    read = _dropped_by_readers(report, source)
    documents = flows[0]["came"][source] if flows else 0
    records = documents + read.total()
    found = [_stage("read", records, documents, read, None)]
    for flow in flows:
        left, characters = flow["left"].get(source, 0), flow["characters"].get(source, 0)
        dropped = Counter(flow["dropped"].get(source, {}))
        found.append(_stage(flow["name"], flow["came"][source], left, dropped, characters))
    for stage in found:
        stage["share"] = stage["left"] / records if records else 0.0
    return found


def without_effect(found: list[dict[str, Any]]) -> set[str]:
    """Names of the `stages` that neither dropped a document of the source nor changed its text;
    the first and the last stage are never among them."""
    return {
        stage["name"]
        for before, stage in pairwise(found[:-1])
        if not stage["lost"] and stage["characters"] == before["characters"]
    }


def sources_met(report: Report, manifest: dict[str, Any]) -> list[str]:
    """The sources of documents kept or dropped, in order of name."""
    read = {file["source"] for file in report["files"] if file.get("source") and file["dropped"]}
    came = {source for flow in report["flows"] for source in flow["came"]}
    return sorted(came | read | set(manifest["sources"]))


def drops(report: Report) -> list[dict[str, Any]]:
    """Every reason for which something was dropped: step, reason, count, by source; most first."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for file in report["files"]:
        for reason, count in file["dropped"].items():
            found.setdefault(("read", reason), Counter())[file.get("source") or "unknown"] += count
    for flow in report["flows"]:
        for source, reasons in flow["dropped"].items():
            for reason, count in reasons.items():
                found.setdefault((flow["name"], reason), Counter())[source] += count
    rows = [
        {"step": step, "reason": reason, "count": counts.total(), "by_source": dict(counts)}
        for (step, reason), counts in found.items()
    ]
    return sorted(rows, key=lambda row: -row["count"])


def faults(report: Report) -> dict[str, Any]:
    """The files that were not read whole, the worst first, and those passed over."""
    faulty = [file for file in report["files"] if file["fault_count"]]
    faulty.sort(key=lambda file: (not file.get("broken"), -file["fault_count"], file["path"]))
    passed_over = [file for file in report["files"] if file["passed_over"]]
    return {
        "read": len(report["files"]) - len(passed_over),
        "faulty": faulty[:SHOWN_FILES],
        "faulty_count": len(faulty),
        "passed_over": passed_over[:SHOWN_FILES],
        "passed_over_count": len(passed_over),
        "fault_count": sum(file["fault_count"] for file in faulty),
    }


def formats(report: Report) -> list[dict[str, Any]]:
    """Files, bytes and documents by file format, most bytes first."""
    found: dict[str, Counter[str]] = {}
    for file in report["files"]:
        if not file["passed_over"]:
            counts = {"files": 1, "bytes": file.get("size", 0), "documents": file["documents"]}
            found.setdefault(file["format"] or "unknown", Counter()).update(counts)
    rows = [{"format": name, **counts} for name, counts in found.items()]
    return sorted(rows, key=lambda row: -row["bytes"])


def dropped_samples(report: Report) -> list[dict[str, Any]]:
    """The samples of drops, grouped: step, reason, source, samples."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for flow in report["flows"]:
        for sample in flow["samples"]:
            place = flow["name"], sample["reason"], sample["source"]
            groups.setdefault(place, []).append(sample)
    names = ("step", "reason", "source")
    return [
        {**dict(zip(names, place, strict=True)), "samples": samples}
        for place, samples in groups.items()
    ]


def tallies(report: Report, passed_over: Iterable[str] = ()) -> list[dict[str, Any]]:
    """What each step counted beside its documents; steps in `passed_over` are left out."""
    return [
        {"step": flow["name"], "counts": sorted(flow["tally"].items(), key=lambda c: -c[1])}
        for flow in report["flows"]
        if flow["tally"] and flow["name"] not in passed_over
    ]


def _stage(
    name: str, came: int, left: int, dropped: Counter[str], characters: int | None
) -> dict[str, Any]:
    counts = {"came": came, "left": left, "characters": characters, "lost": dropped.total()}
    return {"name": name, "dropped": dropped.most_common(), **counts}


def _dropped_by_readers(report: Report, source: str) -> Counter[str]:
    """Records of files in this source's formats; a JSONL record's own source is not known here."""
    own = (file["dropped"] for file in report["files"] if file.get("source") == source)
    return sum((Counter(dropped) for dropped in own), Counter())
