"""Keeps text of notes that were not de-identified out of what people read about a corpus."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

# The name of the step (`Deidentifier.name`) after which a note may be shown.
DEIDENTIFY = "deidentify"
PRIVATE = ("clinical_notes",)
WITHHELD = "withheld: not de-identified"


def withhold(report: dict[str, Any], private: Collection[str] = PRIVATE) -> dict[str, Any]:
    """The report without a word of private documents that were dropped before, or by, the
    de-identification; without any sample of them where there was no such step.

    Args:
        report: as `Seal` makes it: "flows" in the order of the steps, "profiles", "clusters".
        private: sources of which nothing may be shown as it was read.
    """
    steps = [makes_safe(flow, private) for flow in report["flows"]]
    safe_after = steps.index(True) if True in steps else len(steps)
    flows = [
        flow if number > safe_after else {**flow, "samples": _blank(flow["samples"], private)}
        for number, flow in enumerate(report["flows"])
    ]
    report = {**report, "flows": flows}
    if True in steps:
        return report
    profiles = {
        source: {**profile, "samples": []} if source in private else profile
        for source, profile in report["profiles"].items()
    }
    clusters = {
        reason: {**found, "samples": _blank(found["samples"], private)}
        for reason, found in report["clusters"].items()
    }
    return {**report, "profiles": profiles, "clusters": clusters}


def withhold_dropped(
    flows: list[dict[str, Any]], private: Collection[str] = PRIVATE
) -> list[dict[str, Any]]:
    """The flows of one pipeline without a word of private documents that its de-identification,
    or a step before it, dropped; as they are where it has no such step."""
    names = [flow["name"] for flow in flows]
    last = names.index(DEIDENTIFY) if DEIDENTIFY in names else -1
    return [
        {**flow, "samples": _blank(flow["samples"], private)} if number <= last else flow
        for number, flow in enumerate(flows)
    ]


def makes_safe(flow: Mapping[str, Any], private: Collection[str] = PRIVATE) -> bool:
    """Whether a step is the de-identification and all private documents were among its notes."""
    came = sum(flow["came"].get(source, 0) for source in private)
    return flow["name"] == DEIDENTIFY and flow["tally"].get("notes", 0) >= came


def _blank(samples: list[dict[str, Any]], private: Collection[str]) -> list[dict[str, Any]]:
    hidden = {"id": "", "text": "", "detail": WITHHELD}
    return [{**s, **hidden} if s["source"] in private else s for s in samples]
