"""What the resources of a FHIR bundle say of a patient, one line each, by kind of resource.

The line is the resource's narrative where it has one, else made from its coded fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from megatron_biollm.corpus.readers.blocks import html_text
from megatron_biollm.corpus.readers.note import day_of

Resource = dict[str, Any]


def summary_sections(resources: Iterable[Resource]) -> Iterator[tuple[str, str]]:
    """(section name, lines) by kind, in the order of `_KINDS`; a line said twice is said once."""
    lines: dict[str, dict[str, None]] = {}
    for resource in resources:
        kind = resource.get("resourceType", "")
        if kind not in _KINDS:
            continue
        name, describe = _KINDS[kind]
        if line := narrative(resource) or describe(resource):
            lines.setdefault(name, {})[line] = None
    for name, _ in dict.fromkeys(_KINDS.values()):
        if name in lines:
            heading = name.replace("_", " ").capitalize()
            yield name, "\n".join([heading, *lines.pop(name)])


def narrative(resource: Resource) -> str:
    """The text of a resource's or section's narrative."""
    text = resource.get("text")
    div = text.get("div") if isinstance(text, dict) else None
    return html_text(div) if isinstance(div, str) else ""


def concept(value: Any) -> str:
    """The text of a CodeableConcept, or the name of its first code that has one."""
    if not isinstance(value, dict):
        return ""
    names = [coding.get("display") for coding in listed(value, "coding")]
    return next((name for name in (value.get("text"), *names) if isinstance(name, str)), "")


def listed(resource: Resource, key: str) -> list[Resource]:
    """The objects under a key; [] where there are none."""
    value = resource.get(key)
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _concepts(resource: Resource, key: str) -> str:
    return ", ".join(filter(None, map(concept, listed(resource, key))))


def _dated(text: str, resource: Resource, *keys: str) -> str:
    """``2010-05-01: text``, with the first date that is known."""
    for key in keys:
        value = resource.get(key)
        start = value.get("start") if isinstance(value, dict) else value
        if text and isinstance(start, str) and (day := day_of(start)):
            return f"{day}: {text}"
    return text


def _detailed(text: str, *details: str) -> str:
    given = ", ".join(filter(None, details))
    return f"{text} ({given})" if text and given else text


def _encounter(r: Resource) -> str:
    kinds = _concepts(r, "type") or concept({"coding": [r.get("class")]})
    return _dated(_detailed(kinds, _concepts(r, "reasonCode")), r, "period")


def _condition(r: Resource) -> str:
    status = _status(r.get("clinicalStatus"))
    return _dated(_detailed(concept(r.get("code")), status), r, "onsetDateTime", "recordedDate")


def _allergy(r: Resource) -> str:
    reactions = [_concepts(reaction, "manifestation") for reaction in listed(r, "reaction")]
    return _dated(_detailed(concept(r.get("code")), *reactions), r, "onsetDateTime", "recordedDate")


def _medication(r: Resource) -> str:
    doses = [d.get("text") for d in listed(r, "dosageInstruction") + listed(r, "dosage")]
    reasons = _concepts(r, "reasonCode")
    name = concept(r.get("medicationCodeableConcept"))
    given = [dose for dose in doses if isinstance(dose, str)]
    return _dated(_detailed(name, *given, reasons), r, "authoredOn", "effectiveDateTime")


def _observation(r: Resource) -> str:
    value = _value(r)
    parts = [f"{concept(c.get('code'))} {_value(c)}" for c in listed(r, "component")]
    name, found = concept(r.get("code")), "; ".join(filter(None, [value, *parts]))
    meaning = _concepts(r, "interpretation")
    text = _detailed(f"{name}: {found}" if found else name, meaning)
    return _dated(text, r, "effectiveDateTime", "issued")


def _value(r: Resource) -> str:
    quantity = r.get("valueQuantity")
    if isinstance(quantity, dict) and quantity.get("value") is not None:
        number = quantity["value"]
        shown = f"{number:.4g}" if isinstance(number, float) and abs(number) < 1e4 else str(number)
        return f"{shown} {quantity.get('unit') or ''}".strip()
    if isinstance(r.get("valueString"), str):
        return r["valueString"]
    return concept(r.get("valueCodeableConcept"))


def _report(r: Resource) -> str:
    text = r.get("conclusion")
    return _dated(_detailed(concept(r.get("code")), text or ""), r, "effectiveDateTime", "issued")


def _procedure(r: Resource) -> str:
    text = _detailed(concept(r.get("code")), _concepts(r, "reasonCode"))
    return _dated(text, r, "performedPeriod", "performedDateTime")


def _immunization(r: Resource) -> str:
    return _dated(concept(r.get("vaccineCode")), r, "occurrenceDateTime")


def _care_plan(r: Resource) -> str:
    details = [concept(a.get("detail", {}).get("code")) for a in listed(r, "activity")]
    return _dated(_detailed(_concepts(r, "category"), *details), r, "period")


def _goal(r: Resource) -> str:
    return concept(r.get("description"))


def _family(r: Resource) -> str:
    found = [concept(c.get("code")) for c in listed(r, "condition")]
    return _detailed(concept(r.get("relationship")), *found)


def _imaging(r: Resource) -> str:
    series = [concept({"coding": [s.get("bodySite")]}) for s in listed(r, "series")]
    text = r.get("description") or _concepts(r, "procedureCode") or "Imaging study"
    return _dated(_detailed(text, *series), r, "started")


def _status(value: Any) -> str:
    codes = listed(value, "coding") if isinstance(value, dict) else []
    return next((c["code"] for c in codes if isinstance(c.get("code"), str)), "")


# Patients, practitioners, organisations and claims are left out: names, numbers, addresses.
_KINDS: dict[str, tuple[str, Callable[[Resource], str]]] = {
    "Encounter": ("encounters", _encounter),
    "Condition": ("conditions", _condition),
    "AllergyIntolerance": ("allergies", _allergy),
    "FamilyMemberHistory": ("family_history", _family),
    "MedicationRequest": ("medications", _medication),
    "MedicationStatement": ("medications", _medication),
    "Observation": ("observations", _observation),
    "DiagnosticReport": ("reports", _report),
    "Procedure": ("procedures", _procedure),
    "ImagingStudy": ("imaging", _imaging),
    "Immunization": ("immunizations", _immunization),
    "CarePlan": ("care_plans", _care_plan),
    "Goal": ("goals", _goal),
}
