"""Identifiers found in clinical notes, and how well that search was measured to work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from megatron_biollm.corpus.withhold import DEIDENTIFY, PRIVATE, makes_safe

# Labels of the measured set (Presidio's) for each kind of identifier.
_LABELS = {
    "name": ("PERSON",),
    "organisation": ("ORGANIZATION",),
    "location": ("STREET_ADDRESS", "GPE"),
    "zip": ("ZIP_CODE",),
    "date": ("DATE_TIME",),
    "age": ("AGE",),
    "phone": ("PHONE_NUMBER",),
    "fax": ("PHONE_NUMBER",),
    "email": ("EMAIL_ADDRESS",),
    "ssn": ("US_SSN",),
    "account": ("CREDIT_CARD", "IBAN_CODE"),
    "licence": ("US_DRIVER_LICENSE",),
    "url": ("DOMAIN_NAME",),
    "ip": ("IP_ADDRESS",),
}


def identifiers(
    report: Mapping[str, Any], manifest: Mapping[str, Any], measured: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """What the de-identification did; None for a corpus without notes.

    Returns:
        ran: whether all notes went through it. kinds: by kind, how many were replaced and the
        recall and precision measured for it. precisions: whether any is known. residuals: what the
        audit still found, by kind. notes, notes_with_residuals, dropped. measured: its totals, None
        where nothing was measured.
    """
    flow = next((flow for flow in report["flows"] if flow["name"] == DEIDENTIFY), None)
    tally = flow["tally"] if flow else {}
    met = {source for flow in report["flows"] for source in flow["came"]} | set(manifest["sources"])
    if not met & set(PRIVATE) and not tally.get("notes"):
        return None
    replaced = _begin(tally, "replaced_")
    kinds = [
        {"kind": kind, "count": count, **_rates(kind, measured)} for kind, count in replaced.items()
    ]
    return {
        "ran": flow is not None and makes_safe(flow),
        "notes": tally.get("notes", 0),
        "notes_with_residuals": tally.get("notes_with_residuals", 0),
        "dropped": _begin(tally, "dropped_"),
        "residuals": _begin(tally, "residual_"),
        "kinds": kinds,
        "precisions": any(kind["precision"] is not None for kind in kinds),
        "measured": _totals(measured),
    }


def _begin(tally: Mapping[str, int], prefix: str) -> dict[str, int]:
    found = ((k.removeprefix(prefix), n) for k, n in tally.items() if k.startswith(prefix))
    return dict(sorted(found, key=lambda item: -item[1]))


def _rates(kind: str, measured: Mapping[str, Any] | None) -> dict[str, Any]:
    """Recall and precision of one kind; None where the measured set holds none of it."""
    results = (measured or {}).get("recall_by_label", {})
    own = [results[label] for label in _LABELS.get(kind, ()) if label in results]
    labelled = sum(result["labelled"] for result in own)
    recall = sum(result["found"] for result in own) / labelled if labelled else None
    precision = ((measured or {}).get("precision_by_kind", {}).get(kind) or {}).get("precision")
    return {"recall": recall, "labelled": labelled, "precision": precision}


def _totals(measured: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not measured:
        return None
    found = measured["identifiers"]
    names = ("labelled", "recall", "precision")
    own = {name: found.get(name) for name in names}
    beside = ("texts", "leak_rate", "caveat")
    return {**own, **{name: measured.get(name) for name in beside}}
