"""A clinical trial in the shape of the ClinicalTrials.gov API v2, as sections of text.

Shape: https://clinicaltrials.gov/data-api/about-api/study-data-structure. Left out on purpose:
contacts, officials and locations (people and addresses), references (citations), plans for data
sharing (boilerplate), and derived MeSH trees (repeat the conditions).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from megatron_biollm.corpus.readers.trial_results import Node, results_sections, words

# Version 2 of the API escapes Markdown in its free texts.
_ESCAPED = re.compile(r"\\([\\`*_{}\[\]()#+.!<>~|^&-])")


def trial_sections(study: Node) -> Iterator[tuple[str, str]]:
    """(name, text) of every section, some of them empty."""
    protocol = study.get("protocolSection") or {}
    yield "title", _title(protocol.get("identificationModule") or {})
    description = protocol.get("descriptionModule") or {}
    yield "brief_summary", free_text(description.get("briefSummary"))
    yield "detailed_description", free_text(description.get("detailedDescription"))
    yield "conditions", _conditions(protocol.get("conditionsModule") or {})
    yield "status", _status(protocol.get("statusModule") or {})
    yield "design", _design(protocol.get("designModule") or {})
    arms = protocol.get("armsInterventionsModule") or {}
    yield "arms", "\n".join(_arm(arm) for arm in arms.get("armGroups") or ())
    yield "interventions", "\n".join(_intervention(i) for i in arms.get("interventions") or ())
    yield "eligibility", _eligibility(protocol.get("eligibilityModule") or {})
    yield "outcomes", _outcomes(protocol.get("outcomesModule") or {})
    for name, text in results_sections(study.get("resultsSection") or {}):
        yield name, free_text(text)


def free_text(value: Any) -> str:
    """A text with the API's Markdown escapes undone; "" for what is none."""
    return _ESCAPED.sub(r"\1", value).strip() if isinstance(value, str) else ""


def labelled(*pairs: tuple[str, Any]) -> str:
    """``Label: value`` line by line; empty values are left out, lists are joined."""
    lines = []
    for label, value in pairs:
        if isinstance(value, list):
            value = "; ".join(free_text(v) for v in value)
        if value not in (None, ""):
            lines.append(f"{label}: {free_text(str(value))}")
    return "\n".join(lines)


def _title(module: Node) -> str:
    titles = [free_text(module.get(key)) for key in ("briefTitle", "officialTitle")]
    titles.append(free_text(module.get("acronym")))
    kept: list[str] = []
    for title in titles:
        if title and not any(title in other for other in kept):
            kept.append(title)
    return "\n".join(kept)


def _conditions(module: Node) -> str:
    return labelled(("Conditions", module.get("conditions")), ("Keywords", module.get("keywords")))


def _status(module: Node) -> str:
    return labelled(
        ("Status", words(module.get("overallStatus"))), ("Why stopped", module.get("whyStopped"))
    )


def _design(module: Node) -> str:
    info = module.get("designInfo") or {}
    masking = info.get("maskingInfo") or {}
    return labelled(
        ("Study type", words(module.get("studyType"))),
        # One line for all in legacy XML of before 2017.
        ("Study design", module.get("studyDesign")),
        ("Phase", [words(phase) for phase in module.get("phases") or ()]),
        ("Allocation", words(info.get("allocation"))),
        ("Intervention model", words(info.get("interventionModel"))),
        ("Intervention model description", info.get("interventionModelDescription")),
        ("Observational model", words(info.get("observationalModel"))),
        ("Time perspective", words(info.get("timePerspective"))),
        ("Primary purpose", words(info.get("primaryPurpose"))),
        ("Masking", words(masking.get("masking"))),
        ("Masking description", masking.get("maskingDescription")),
        ("Enrollment", (module.get("enrollmentInfo") or {}).get("count")),
        ("Biospecimens", (module.get("bioSpec") or {}).get("description")),
    )


def _arm(arm: Node) -> str:
    kind = f" ({words(arm['type'])})" if arm.get("type") else ""
    return _with_description(f"{free_text(arm.get('label'))}{kind}", arm)


def _intervention(intervention: Node) -> str:
    kind = f"{words(intervention['type'])}: " if intervention.get("type") else ""
    others = "; ".join(free_text(name) for name in intervention.get("otherNames") or ())
    head = f"{kind}{free_text(intervention.get('name'))}"
    return _with_description(f"{head} (also: {others})" if others else head, intervention)


def _with_description(head: str, node: Node) -> str:
    description = free_text(node.get("description"))
    return f"{head}. {description}" if description else head


def _eligibility(module: Node) -> str:
    healthy = module.get("healthyVolunteers")
    facts = labelled(
        ("Sex", words(module.get("sex"))),
        ("Gender", module.get("genderDescription")),
        ("Minimum age", module.get("minimumAge")),
        ("Maximum age", module.get("maximumAge")),
        ("Healthy volunteers", {True: "Yes", False: "No"}.get(healthy, healthy)),
        ("Study population", module.get("studyPopulation")),
    )
    return "\n\n".join(filter(None, (free_text(module.get("eligibilityCriteria")), facts)))


def _outcomes(module: Node) -> str:
    lines = []
    for kind in ("primary", "secondary", "other"):
        for outcome in module.get(f"{kind}Outcomes") or ():
            frame = free_text(outcome.get("timeFrame"))
            head = f"{kind.capitalize()} outcome: {free_text(outcome.get('measure'))}"
            lines.append(_with_description(f"{head} [{frame}]" if frame else head, outcome))
    return "\n".join(lines)
