import json

from megatron_biollm.corpus.withhold import withhold, withhold_dropped

NAME = "John Doe"


def sample(source, **values):
    return {"source": source, "id": f"{NAME} {source}", "reason": "r", "detail": NAME, "text": NAME}


def flow(name, notes=0, tally=None):
    samples = [sample("clinical_notes"), sample("pubmed")]
    return {"name": name, "came": {"clinical_notes": notes}, "tally": tally or {}} | {
        "samples": samples
    }


def report(*flows):
    profiles = {
        "clinical_notes": {"samples": [sample("clinical_notes")]},
        "pubmed": {"samples": []},
    }
    clusters = {"near_duplicate": {"summary": {}, "samples": [sample("clinical_notes")]}}
    return {"files": [], "flows": list(flows), "profiles": profiles, "clusters": clusters}


DEIDENTIFY = flow("deidentify", notes=3, tally={"notes": 3})


def leaks(flows):
    return [name for name, f in flows.items() if NAME in json.dumps(f["samples"][0])]


def test_notes_dropped_before_or_by_the_de_identification_are_not_shown():
    shown = withhold(report(flow("language"), DEIDENTIFY, flow("identity")))
    assert leaks({f["name"]: f for f in shown["flows"]}) == ["identity"]
    assert shown["flows"][0]["samples"][0]["reason"] == "r"


def test_other_sources_are_shown_as_they_are():
    shown = withhold(report(flow("language"), DEIDENTIFY))
    assert all(f["samples"][1] == sample("pubmed") for f in shown["flows"])


def test_kept_notes_are_shown_only_where_they_were_de_identified():
    assert NAME in json.dumps(withhold(report(DEIDENTIFY))["profiles"])
    for flows in ([], [flow("deidentify", notes=3)]):
        shown = withhold(report(*flows))
        assert NAME not in json.dumps([shown["profiles"], shown["clusters"]])
        assert leaks({f["name"]: f for f in shown["flows"]}) == []


def test_one_pipeline_withholds_what_it_dropped_up_to_its_de_identification():
    flows = withhold_dropped([flow("language"), DEIDENTIFY, flow("identity")])
    assert leaks({f["name"]: f for f in flows}) == ["identity"]
    assert leaks({f["name"]: f for f in withhold_dropped([flow("identity")])}) == ["identity"]
