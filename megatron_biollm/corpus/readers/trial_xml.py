"""ClinicalTrials.gov's legacy XML (clinical_study, until 2024) in the shape of API v2.

Only fields that become text, identity or date are carried over. Source of the names:
https://clinicaltrials.gov/ct2/html/images/info/public.xsd.
"""

from __future__ import annotations

import re
from typing import Any

from lxml import etree

from megatron_biollm.corpus.readers.trial_results import Node

_BLANK_LINE = re.compile(r"\n[ \t]*\n\s*")


def from_xml(study: etree._Element) -> Node:
    """A clinical_study element in the shape of API v2."""
    return _shaped(study, _XML)


def _shaped(element: etree._Element, shape: Any) -> Any:
    """A shape is a path to a text or "@attribute"; [path] for all texts; (path, shape) for a
    list of objects; a dict for an object."""
    if isinstance(shape, dict):
        found = ((name, _shaped(element, inner)) for name, inner in shape.items())
        return {name: value for name, value in found if value not in (None, "", [], {})}
    if isinstance(shape, list):
        return [_paragraphs(e) for e in element.iterfind(shape[0])]
    if isinstance(shape, tuple):
        return [_shaped(e, shape[1]) for e in element.iterfind(shape[0])]
    if shape.startswith("@"):
        return element.get(shape[1:])
    found = element if shape == "." else element.find(shape)
    return None if found is None else _paragraphs(found)


def _paragraphs(element: etree._Element) -> str:
    """Text as wrapped and indented by the old site, one line per paragraph or list item."""
    text = "".join(element.itertext())
    return "\n\n".join(" ".join(part.split()) for part in _BLANK_LINE.split(text)).strip()


_GROUPS = ("group_list/group", {"id": "@group_id", "title": "title", "description": "description"})
_COUNTS = ("count_list/count", {"groupId": "@group_id", "value": "@value"})
_DENOMS = ("analyzed_list/analyzed", {"units": "units", "counts": _COUNTS})
_MEASUREMENTS = (
    "measurement_list/measurement",
    {
        "groupId": "@group_id",
        "value": "@value",
        "spread": "@spread",
        "lowerLimit": "@lower_limit",
        "upperLimit": "@upper_limit",
        "comment": ".",
    },
)
_CATEGORIES = ("category_list/category", {"title": "title", "measurements": _MEASUREMENTS})
_CLASSES = ("class_list/class", {"title": "title", "categories": _CATEGORIES})
_PARTICIPANTS = {"groupId": "@group_id", "numSubjects": "@count", "comment": "."}
_STATS = ("counts", {"groupId": "@group_id", "numAffected": "@subjects_affected",
                     "numAtRisk": "@subjects_at_risk"})  # fmt: skip
_EVENT = {"term": "sub_title", "organSystem": "../../title", "notes": "description",
          "stats": _STATS}  # fmt: skip
_OUTCOME = {"measure": "measure", "timeFrame": "time_frame", "description": "description"}

_ANALYSES = (
    "analysis_list/analysis",
    {
        "groupIds": ["group_id_list/group_id"],
        "groupDescription": "groups_desc",
        "nonInferiorityType": "non_inferiority_type",
        "nonInferiorityComment": "non_inferiority_desc",
        "pValue": "p_value",
        "pValueComment": "p_value_desc",
        "statisticalMethod": "method",
        "statisticalComment": "method_desc",
        "paramType": "param_type",
        "paramValue": "param_value",
        "ciPctValue": "ci_percent",
        "ciLowerLimit": "ci_lower_limit",
        "ciUpperLimit": "ci_upper_limit",
        "estimateComment": "estimate_desc",
        "otherAnalysisDescription": "other_analysis_desc",
    },
)

_XML_PROTOCOL = {
    "identificationModule": {
        "nctId": "id_info/nct_id",
        "briefTitle": "brief_title",
        "officialTitle": "official_title",
        "acronym": "acronym",
    },
    "statusModule": {
        "overallStatus": "overall_status",
        "whyStopped": "why_stopped",
        "lastUpdatePostDateStruct": {"date": "last_update_posted"},
        "lastUpdateSubmitDate": "lastchanged_date",
        "studyFirstSubmitDate": "firstreceived_date",
    },
    "descriptionModule": {
        "briefSummary": "brief_summary/textblock",
        "detailedDescription": "detailed_description/textblock",
    },
    "conditionsModule": {"conditions": ["condition"], "keywords": ["keyword"]},
    "designModule": {
        "studyDesign": "study_design",
        "studyType": "study_type",
        "phases": ["phase"],
        "enrollmentInfo": {"count": "enrollment"},
        "designInfo": {
            "allocation": "study_design_info/allocation",
            "interventionModel": "study_design_info/intervention_model",
            "interventionModelDescription": "study_design_info/intervention_model_description",
            "observationalModel": "study_design_info/observational_model",
            "timePerspective": "study_design_info/time_perspective",
            "primaryPurpose": "study_design_info/primary_purpose",
            "maskingInfo": {
                "masking": "study_design_info/masking",
                "maskingDescription": "study_design_info/masking_description",
            },
        },
        "bioSpec": {"description": "biospec_descr/textblock"},
    },
    "armsInterventionsModule": {
        "armGroups": (
            "arm_group",
            {"label": "arm_group_label", "type": "arm_group_type", "description": "description"},
        ),
        "interventions": (
            "intervention",
            {
                "type": "intervention_type",
                "name": "intervention_name",
                "description": "description",
                "otherNames": ["other_name"],
            },
        ),
    },
    "outcomesModule": {
        "primaryOutcomes": ("primary_outcome", _OUTCOME),
        "secondaryOutcomes": ("secondary_outcome", _OUTCOME),
        "otherOutcomes": ("other_outcome", _OUTCOME),
    },
    "eligibilityModule": {
        "eligibilityCriteria": "eligibility/criteria/textblock",
        "sex": "eligibility/gender",
        "genderDescription": "eligibility/gender_description",
        "minimumAge": "eligibility/minimum_age",
        "maximumAge": "eligibility/maximum_age",
        "healthyVolunteers": "eligibility/healthy_volunteers",
        "studyPopulation": "eligibility/study_pop/textblock",
    },
}

_XML_RESULTS = {
    "participantFlowModule": {
        "recruitmentDetails": "clinical_results/participant_flow/recruitment_details",
        "preAssignmentDetails": "clinical_results/participant_flow/pre_assignment_details",
        "groups": (f"clinical_results/participant_flow/{_GROUPS[0]}", _GROUPS[1]),
        "periods": (
            "clinical_results/participant_flow/period_list/period",
            {
                "title": "title",
                "milestones": (
                    "milestone_list/milestone",
                    {
                        "type": "title",
                        "achievements": ("participants_list/participants", _PARTICIPANTS),
                    },
                ),
                "dropWithdraws": (
                    "drop_withdraw_reason_list/drop_withdraw_reason",
                    {"type": "title", "reasons": ("participants_list/participants", _PARTICIPANTS)},
                ),
            },
        ),
    },
    "baselineCharacteristicsModule": {
        "populationDescription": "clinical_results/baseline/population",
        "groups": (f"clinical_results/baseline/{_GROUPS[0]}", _GROUPS[1]),
        "denoms": (f"clinical_results/baseline/{_DENOMS[0]}", _DENOMS[1]),
        "measures": (
            "clinical_results/baseline/measure_list/measure",
            {
                "title": "title",
                "description": "description",
                "populationDescription": "population",
                "paramType": "param",
                "dispersionType": "dispersion",
                "unitOfMeasure": "units",
                "classes": _CLASSES,
            },
        ),
    },
    "outcomeMeasuresModule": {
        "outcomeMeasures": (
            "clinical_results/outcome_list/outcome",
            {
                "type": "type",
                "title": "title",
                "description": "description",
                "populationDescription": "population",
                "timeFrame": "time_frame",
                "paramType": "measure/param",
                "dispersionType": "measure/dispersion",
                "unitOfMeasure": "measure/units",
                "groups": _GROUPS,
                "denoms": (f"measure/{_DENOMS[0]}", _DENOMS[1]),
                "classes": (f"measure/{_CLASSES[0]}", _CLASSES[1]),
                "analyses": _ANALYSES,
            },
        )
    },
    "adverseEventsModule": {
        "timeFrame": "clinical_results/reported_events/time_frame",
        "description": "clinical_results/reported_events/desc",
        "eventGroups": (f"clinical_results/reported_events/{_GROUPS[0]}", _GROUPS[1]),
        "seriousEvents": (
            "clinical_results/reported_events/serious_events/category_list/category/"
            "event_list/event",
            _EVENT,
        ),
        "otherEvents": (
            "clinical_results/reported_events/other_events/category_list/category/event_list/event",
            _EVENT,
        ),
    },
    "moreInfoModule": {
        "limitationsAndCaveats": {"description": "clinical_results/limitations_and_caveats"}
    },
}

_XML = {"protocolSection": _XML_PROTOCOL, "resultsSection": _XML_RESULTS}
