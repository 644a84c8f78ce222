import gzip
import io
import json
import re
import tracemalloc

import pytest

from megatron_biollm.corpus.readers.clinical_trials import FORMATS, read_api, read_legacy_xml
from megatron_biollm.corpus.readers.registry import find_format
from megatron_biollm.corpus.report import FileReport
from tests.corpus.shared_samples import (
    SAMPLES,
    expected_counts,
    needs_samples,
    read_sample,
)


def study(nct_id="NCT00000001", **modules):
    protocol = {
        "identificationModule": {"nctId": nct_id, "briefTitle": "A trial", **modules.pop("id", {})},
        "statusModule": {
            "overallStatus": "COMPLETED",
            "lastUpdatePostDateStruct": {"date": "2024-03-01"},
        },
    }
    results = modules.pop("results", None)
    protocol |= modules
    return {"protocolSection": protocol} | ({"resultsSection": results} if results else {})


def read(value, name="studies.json", reader=read_api):
    report = FileReport(name)
    data = value if isinstance(value, (bytes, str)) else json.dumps(value)
    data = data.encode() if isinstance(data, str) else data
    return list(reader(io.BytesIO(data), name, report)), report


def section(document, name):
    return next(document.text[s.start : s.end] for s in document.sections if s.name == name)


def test_a_study_is_its_sections_under_its_nct_number():
    documents, _ = read(
        study(
            descriptionModule={"briefSummary": "We test.", "detailedDescription": "At length."},
            conditionsModule={"conditions": ["Asthma", "COPD"], "keywords": ["lung"]},
            eligibilityModule={"eligibilityCriteria": "Inclusion:\n\n* Age \\>18", "sex": "ALL"},
        )
    )
    (document,) = documents
    assert (document.id, document.source, document.date) == (
        "NCT00000001", "clinical_trials", "2024-03-01",
    )  # fmt: skip
    assert document.licence and document.language == "en"
    assert document.metadata == {"nct_id": "NCT00000001", "status": "Completed"}
    assert section(document, "title") == "A trial"
    assert section(document, "brief_summary") == "We test."
    assert section(document, "conditions") == "Conditions: Asthma; COPD\nKeywords: lung"
    assert section(document, "eligibility") == "Inclusion:\n\n* Age >18\n\nSex: All"


def test_results_are_tables_with_a_row_per_category_and_groups_described_once():
    groups = [
        {"id": "OG000", "title": "Drug", "description": "Ten mg."},
        {"id": "OG001", "title": "Placebo", "description": "Sugar."},
    ]
    measure = {
        "type": "PRIMARY",
        "title": "Pain",
        "timeFrame": "1 week",
        "paramType": "MEAN",
        "dispersionType": "Standard Deviation",
        "unitOfMeasure": "points",
        "groups": groups,
        "denoms": [{"counts": [{"groupId": "OG000", "value": "9"}]}],
        "classes": [
            {
                "categories": [
                    {
                        "title": "at rest",
                        "measurements": [
                            {"groupId": "OG001", "value": "4",
                             "lowerLimit": "2", "upperLimit": "6"},
                            {"groupId": "OG000", "value": "3", "spread": "1.5"},
                        ],
                    }
                ]
            }
        ],
        "analyses": [{"groupIds": ["OG000", "OG001"], "pValue": "0.03", "paramType": "Difference",
                      "paramValue": "-1", "ciPctValue": "95", "ciLowerLimit": "-2",
                      "ciUpperLimit": "0"}],
    }  # fmt: skip
    again = {"type": "SECONDARY", "title": "Sleep", "groups": groups}
    documents, _ = read(
        study(results={"outcomeMeasuresModule": {"outcomeMeasures": [measure, again]}})
    )
    assert section(documents[0], "outcome_measures") == (
        "Primary outcome: Pain [1 week]\n"
        "Drug: Ten mg.\n"
        "Placebo: Sugar.\n"
        "Group | Drug (n=9) | Placebo [Mean / Standard Deviation, points]\n"
        "at rest | 3 (1.5) | 4 (2 to 6)\n"
        "Analysis of Drug vs Placebo; Difference -1 (95% CI -2 to 0); p 0.03\n"
        "\n"
        "Secondary outcome: Sleep"
    )


def test_adverse_events_that_no_one_had_are_left_out():
    def event(term, *counts):
        stats = [
            {"groupId": group, "numAffected": count, "numAtRisk": 10}
            for group, count in zip(("EG000", "EG001"), counts, strict=True)
        ]
        return {"term": term, "organSystem": "Blood", "stats": stats}

    module = {
        "eventGroups": [{"id": "EG000", "title": "Drug", "seriousNumAffected": 1,
                         "seriousNumAtRisk": 10}, {"id": "EG001", "title": "Placebo"}],
        "seriousEvents": [event("Anaemia", 1, 0), event("Leukopenia", 0, 0)],
    }  # fmt: skip
    documents, _ = read(study(results={"adverseEventsModule": module}))
    assert section(documents[0], "adverse_events") == (
        "Drug: serious 1/10\nSerious adverse events | Drug | Placebo\nAnaemia (Blood) | 1/10 | 0/10"
    )


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ([study("NCT1"), study("NCT2")], "list.json"),
        ({"studies": [study("NCT1"), study("NCT2")], "nextPageToken": "z"}, "page.json"),
        (f"{json.dumps(study('NCT1'))}\n{json.dumps(study('NCT2'))}\n", "lines.jsonl"),
    ],
)
def test_lists_pages_and_lines_of_studies(value, name):
    documents, report = read(value, name)
    assert [document.id for document in documents] == ["NCT1", "NCT2"]
    assert report.fault_count == 0
    data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
    assert find_format(data, name) is FORMATS[0]


def test_the_older_api_gives_the_same_text():
    newer = study(
        conditionsModule={"conditions": ["Asthma"]},
        armsInterventionsModule={"armGroups": [{"label": "A", "type": "Other"}]},
        outcomesModule={"primaryOutcomes": [{"measure": "Death", "timeFrame": "1 year"}]},
    )
    older = {
        "ProtocolSection": {
            "IdentificationModule": {"NCTId": "NCT00000001", "BriefTitle": "A trial"},
            "StatusModule": {
                "OverallStatus": "COMPLETED",
                "LastUpdatePostDateStruct": {"LastUpdatePostDate": "March 1, 2024"},
            },
            "ConditionsModule": {"ConditionList": {"Condition": ["Asthma"]}},
            "ArmsInterventionsModule": {
                "ArmGroupList": {"ArmGroup": [{"ArmGroupLabel": "A", "ArmGroupType": "Other"}]}
            },
            "OutcomesModule": {
                "PrimaryOutcomeList": {
                    "PrimaryOutcome": [
                        {"PrimaryOutcomeMeasure": "Death", "PrimaryOutcomeTimeFrame": "1 year"}
                    ]
                }
            },
        }
    }
    answer = {"FullStudiesResponse": {"FullStudies": [{"Rank": 1, "Study": older}]}}
    assert read(answer)[0] == read(newer)[0]


def test_legacy_xml_gives_the_same_text():
    xml = """<clinical_study><id_info><nct_id>NCT00000001</nct_id></id_info>
    <brief_title>A trial</brief_title><overall_status>Completed</overall_status>
    <last_update_posted type="Actual">March 1, 2024</last_update_posted>
    <brief_summary><textblock>
      We test
      wrapped lines.

      -  And a list.
    </textblock></brief_summary></clinical_study>"""
    newer = study(descriptionModule={"briefSummary": "We test wrapped lines.\n\n- And a list."})
    assert read(xml, "NCT00000001.xml", read_legacy_xml)[0] == read(newer)[0]


def test_a_study_without_text_is_counted_and_one_without_a_number_takes_the_files():
    empty = {"protocolSection": {"sponsorCollaboratorsModule": {"leadSponsor": {"name": "X"}}}}
    nameless = {"protocolSection": {"descriptionModule": {"briefSummary": "Words."}}}
    documents, report = read([empty, nameless])
    assert [document.id for document in documents] == ["studies.json#2"]
    assert report.dropped == {"no_text": 1}


@pytest.mark.parametrize(
    "record",
    [{"other": 1}, {"protocolSection": [1]}, {"protocolSection": {"statusModule": "late"}}],
)
def test_what_is_no_study_is_a_fault_and_the_rest_goes_on(record):
    documents, report = read([study("NCT1"), record, study("NCT2")])
    assert [document.id for document in documents] == ["NCT1", "NCT2"]
    assert report.faults[0].position == "studies.json, record 2"


def test_truncated_and_hostile_xml_is_a_fault():
    _, report = read("<clinical_study><brief_title>A tri", "a.xml", read_legacy_xml)
    assert "ends too early" in report.faults[0].reason
    study_with_entity = "<clinical_study><brief_title>&a;</brief_title></clinical_study>"
    bomb = f'<!DOCTYPE x [<!ENTITY a "b">]>{study_with_entity}'
    documents, report = read(bomb, "a.xml", read_legacy_xml)
    assert not documents and "refused" in report.faults[0].reason


def test_memory_does_not_grow_with_the_list():
    one = json.dumps(study(descriptionModule={"briefSummary": "word " * 2000})).encode()

    def peak(count):
        stream = io.BytesIO(b"[" + b",".join([one] * count) + b"]")
        tracemalloc.start()
        try:
            assert sum(1 for _ in read_api(stream, "a.json", FileReport("a"))) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # 5 MB and 30 MB.
    assert peak(3000) < 1.1 * peak(500)


@needs_samples
@pytest.mark.parametrize(("file", "count"), expected_counts("clinicaltrials"))
def test_real_files_give_as_many_documents_as_they_hold(file, count):
    documents, report = read_sample(file)
    # Two members of the legacy archive are lists of search results.
    assert len(documents) + report.dropped["no_text"] == count
    assert report.fault_count == 0
    assert all(document.source == "clinical_trials" and document.licence for document in documents)


# Free texts of a study; everything else is codes, dates, numbers and addresses.
TEXT_KEYS = {
    "briefTitle", "officialTitle", "briefSummary", "detailedDescription", "eligibilityCriteria",
    "studyPopulation", "measure", "timeFrame", "description", "populationDescription", "title",
    "name", "label", "interventionModelDescription", "maskingDescription", "whyStopped", "comment",
    "recruitmentDetails", "preAssignmentDetails", "value", "spread", "statisticalComment",
    "pValueComment", "estimateComment", "groupDescription", "unitOfMeasure", "term",
}  # fmt: skip
NOT_TEXT = {"contactsLocationsModule", "referencesModule", "ipdSharingStatementModule",
            "sponsorCollaboratorsModule", "derivedSection", "documentSection",
            "pointOfContact", "certainAgreement"}  # fmt: skip


def texts_of(value, key=""):
    if isinstance(value, dict):
        for name, inner in value.items():
            if name not in NOT_TEXT:
                yield from texts_of(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_of(inner, key)
    elif isinstance(value, str) and key in TEXT_KEYS:
        yield re.sub(r"\\([^\w\s])", r"\1", value)


@needs_samples
@pytest.mark.parametrize("name", ["dgg32_a", "dgg32_b", "graph_bigquery", "koy570"])
def test_no_text_of_real_studies_is_lost(name):
    file = f"clinicaltrials/ctg-studies_{name}.json.gz"
    documents, _ = read_sample(file)
    found = {document.id: " ".join(document.text.split()) for document in documents}
    letters = missing = 0
    for record in json.loads(gzip.decompress((SAMPLES / file).read_bytes())):
        number = record["protocolSection"]["identificationModule"]["nctId"]
        for text in texts_of(record):
            letters += len(text)
            missing += len(text) if " ".join(text.split()) not in found[number] else 0
    assert missing <= 0.01 * letters
