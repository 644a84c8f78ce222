"""ClinicalTrials.gov's API v1 (FullStudies, until 2024) in the shape of API v2.

Version 1 names every field uniquely ("OutcomeMeasureTitle") and wraps lists in objects
({"ConditionList": {"Condition": [...]}}). Version 2 lists these names as the "piece" of each of
its fields: https://clinicaltrials.gov/api/v2/studies/metadata. Only fields that become text,
identity or date are carried over.
"""

from __future__ import annotations

from typing import Any


def from_api_v1(value: Any) -> Any:
    """A Study object of API v1, or any part of one, in the shape of API v2."""
    if isinstance(value, list):
        return [from_api_v1(item) for item in value]
    if not isinstance(value, dict):
        return value
    renamed = {}
    for piece, inner in value.items():
        name = _NAMES.get(piece)
        if name is None:
            continue
        if piece.endswith("List") and isinstance(inner, dict):
            inner = next(iter(inner.values()), [])
        renamed[name] = from_api_v1(inner)
    return renamed


# Pieces whose name in version 2 is the same but for its first letter.
_SAME = """
    ProtocolSection ResultsSection IdentificationModule StatusModule DescriptionModule
    ConditionsModule DesignModule ArmsInterventionsModule OutcomesModule EligibilityModule
    BriefTitle OfficialTitle Acronym OverallStatus WhyStopped LastUpdatePostDateStruct
    LastUpdateSubmitDate StudyFirstSubmitDate BriefSummary DetailedDescription StudyType
    EnrollmentInfo DesignInfo BioSpec EligibilityCriteria GenderDescription MinimumAge MaximumAge
    HealthyVolunteers StudyPopulation ParticipantFlowModule BaselineCharacteristicsModule
    OutcomeMeasuresModule AdverseEventsModule MoreInfoModule LimitationsAndCaveats
"""

_NAMES = {piece: piece[0].lower() + piece[1:] for piece in _SAME.split()} | {
    "NCTId": "nctId",
    "LastUpdatePostDate": "date",
    "ConditionList": "conditions",
    "KeywordList": "keywords",
    "PhaseList": "phases",
    "EnrollmentCount": "count",
    "DesignAllocation": "allocation",
    "DesignInterventionModel": "interventionModel",
    "DesignInterventionModelDescription": "interventionModelDescription",
    "DesignObservationalModelList": "observationalModel",
    "DesignTimePerspectiveList": "timePerspective",
    "DesignPrimaryPurpose": "primaryPurpose",
    "DesignMaskingInfo": "maskingInfo",
    "DesignMasking": "masking",
    "DesignMaskingDescription": "maskingDescription",
    "BioSpecDescription": "description",
    "ArmGroupList": "armGroups",
    "ArmGroupLabel": "label",
    "ArmGroupType": "type",
    "ArmGroupDescription": "description",
    "InterventionList": "interventions",
    "InterventionType": "type",
    "InterventionName": "name",
    "InterventionDescription": "description",
    "InterventionOtherNameList": "otherNames",
    "PrimaryOutcomeList": "primaryOutcomes",
    "PrimaryOutcomeMeasure": "measure",
    "PrimaryOutcomeDescription": "description",
    "PrimaryOutcomeTimeFrame": "timeFrame",
    "SecondaryOutcomeList": "secondaryOutcomes",
    "SecondaryOutcomeMeasure": "measure",
    "SecondaryOutcomeDescription": "description",
    "SecondaryOutcomeTimeFrame": "timeFrame",
    "OtherOutcomeList": "otherOutcomes",
    "OtherOutcomeMeasure": "measure",
    "OtherOutcomeDescription": "description",
    "OtherOutcomeTimeFrame": "timeFrame",
    "Gender": "sex",
    "FlowRecruitmentDetails": "recruitmentDetails",
    "FlowPreAssignmentDetails": "preAssignmentDetails",
    "FlowGroupList": "groups",
    "FlowGroupId": "id",
    "FlowGroupTitle": "title",
    "FlowGroupDescription": "description",
    "FlowPeriodList": "periods",
    "FlowPeriodTitle": "title",
    "FlowMilestoneList": "milestones",
    "FlowMilestoneType": "type",
    "FlowMilestoneComment": "comment",
    "FlowAchievementList": "achievements",
    "FlowAchievementGroupId": "groupId",
    "FlowAchievementNumSubjects": "numSubjects",
    "FlowAchievementComment": "comment",
    "FlowDropWithdrawList": "dropWithdraws",
    "FlowDropWithdrawType": "type",
    "FlowReasonList": "reasons",
    "FlowReasonGroupId": "groupId",
    "FlowReasonNumSubjects": "numSubjects",
    "BaselinePopulationDescription": "populationDescription",
    "BaselineGroupList": "groups",
    "BaselineGroupId": "id",
    "BaselineGroupTitle": "title",
    "BaselineGroupDescription": "description",
    "BaselineDenomList": "denoms",
    "BaselineDenomUnits": "units",
    "BaselineDenomCountList": "counts",
    "BaselineDenomCountGroupId": "groupId",
    "BaselineDenomCountValue": "value",
    "BaselineMeasureList": "measures",
    "BaselineMeasureTitle": "title",
    "BaselineMeasureDescription": "description",
    "BaselineMeasurePopulationDescription": "populationDescription",
    "BaselineMeasureParamType": "paramType",
    "BaselineMeasureDispersionType": "dispersionType",
    "BaselineMeasureUnitOfMeasure": "unitOfMeasure",
    "BaselineClassList": "classes",
    "BaselineClassTitle": "title",
    "BaselineCategoryList": "categories",
    "BaselineCategoryTitle": "title",
    "BaselineMeasurementList": "measurements",
    "BaselineMeasurementGroupId": "groupId",
    "BaselineMeasurementValue": "value",
    "BaselineMeasurementSpread": "spread",
    "BaselineMeasurementLowerLimit": "lowerLimit",
    "BaselineMeasurementUpperLimit": "upperLimit",
    "BaselineMeasurementComment": "comment",
    "OutcomeMeasureList": "outcomeMeasures",
    "OutcomeMeasureType": "type",
    "OutcomeMeasureTitle": "title",
    "OutcomeMeasureDescription": "description",
    "OutcomeMeasurePopulationDescription": "populationDescription",
    "OutcomeMeasureParamType": "paramType",
    "OutcomeMeasureDispersionType": "dispersionType",
    "OutcomeMeasureUnitOfMeasure": "unitOfMeasure",
    "OutcomeMeasureTimeFrame": "timeFrame",
    "OutcomeGroupList": "groups",
    "OutcomeGroupId": "id",
    "OutcomeGroupTitle": "title",
    "OutcomeGroupDescription": "description",
    "OutcomeDenomList": "denoms",
    "OutcomeDenomUnits": "units",
    "OutcomeDenomCountList": "counts",
    "OutcomeDenomCountGroupId": "groupId",
    "OutcomeDenomCountValue": "value",
    "OutcomeClassList": "classes",
    "OutcomeClassTitle": "title",
    "OutcomeCategoryList": "categories",
    "OutcomeCategoryTitle": "title",
    "OutcomeMeasurementList": "measurements",
    "OutcomeMeasurementGroupId": "groupId",
    "OutcomeMeasurementValue": "value",
    "OutcomeMeasurementSpread": "spread",
    "OutcomeMeasurementLowerLimit": "lowerLimit",
    "OutcomeMeasurementUpperLimit": "upperLimit",
    "OutcomeMeasurementComment": "comment",
    "OutcomeAnalysisList": "analyses",
    "OutcomeAnalysisGroupIdList": "groupIds",
    "OutcomeAnalysisGroupDescription": "groupDescription",
    "OutcomeAnalysisNonInferiorityType": "nonInferiorityType",
    "OutcomeAnalysisNonInferiorityComment": "nonInferiorityComment",
    "OutcomeAnalysisPValue": "pValue",
    "OutcomeAnalysisPValueComment": "pValueComment",
    "OutcomeAnalysisStatisticalMethod": "statisticalMethod",
    "OutcomeAnalysisStatisticalComment": "statisticalComment",
    "OutcomeAnalysisParamType": "paramType",
    "OutcomeAnalysisParamValue": "paramValue",
    "OutcomeAnalysisCIPctValue": "ciPctValue",
    "OutcomeAnalysisCILowerLimit": "ciLowerLimit",
    "OutcomeAnalysisCIUpperLimit": "ciUpperLimit",
    "OutcomeAnalysisEstimateComment": "estimateComment",
    "OutcomeAnalysisOtherAnalysisDescription": "otherAnalysisDescription",
    "EventsTimeFrame": "timeFrame",
    "EventsDescription": "description",
    "EventGroupList": "eventGroups",
    "EventGroupId": "id",
    "EventGroupTitle": "title",
    "EventGroupDescription": "description",
    "EventGroupDeathsNumAffected": "deathsNumAffected",
    "EventGroupDeathsNumAtRisk": "deathsNumAtRisk",
    "EventGroupSeriousNumAffected": "seriousNumAffected",
    "EventGroupSeriousNumAtRisk": "seriousNumAtRisk",
    "EventGroupOtherNumAffected": "otherNumAffected",
    "EventGroupOtherNumAtRisk": "otherNumAtRisk",
    "SeriousEventList": "seriousEvents",
    "SeriousEventTerm": "term",
    "SeriousEventOrganSystem": "organSystem",
    "SeriousEventNotes": "notes",
    "SeriousEventStatsList": "stats",
    "SeriousEventStatsGroupId": "groupId",
    "SeriousEventStatsNumAffected": "numAffected",
    "SeriousEventStatsNumAtRisk": "numAtRisk",
    "OtherEventList": "otherEvents",
    "OtherEventTerm": "term",
    "OtherEventOrganSystem": "organSystem",
    "OtherEventNotes": "notes",
    "OtherEventStatsList": "stats",
    "OtherEventStatsGroupId": "groupId",
    "OtherEventStatsNumAffected": "numAffected",
    "OtherEventStatsNumAtRisk": "numAtRisk",
    "LimitationsAndCaveatsDescription": "description",
}
