import json
from dataclasses import asdict

import pytest

from megatron_biollm.feedback.progress import disputes, report, table
from tests.feedback.project import pair


def test_counts_gold_agreement_and_reasons(make_project):
    project = make_project([pair(n, gold="tie" if n < 2 else None) for n in range(12)], 1.0)
    project.visitor("Ada").judge_all({"preference": "tie", "category_a": "bias"})
    project.visitor("Ben").judge_all({"preference": "tie"})
    project.visitor("Cleo").judge_all({"preference": "a", "strength": "1"})
    found = report(project.connection)
    assert found["totals"] == {
        "items": 12, "complete": 12, "double_items": 12, "gold_items": 2, "ratings": 26,
        "disputed": 10, "adjudicated": 0,
    }  # fmt: skip
    people = {row["name"]: row for row in found["annotators"]}
    assert [people[n]["judgements"] for n in ("Ada", "Ben", "Cleo", "Judge")] == [12, 12, 2, 0]
    assert (people["Ada"]["gold"].value, people["Cleo"]["gold"].value) == (1.0, 0.0)
    assert found["criteria"]["preference"]["equal"].n == 12 + 2 + 2
    assert found["criteria"]["preference"]["equal"].value == pytest.approx(12 / 16)
    assert found["criteria"]["unsafe"]["alpha"].value < 0.1
    assert [(p["first"], p["second"]) for p in found["pairs"]] == [
        ("Ada", "Ben"), ("Ada", "Cleo"), ("Ben", "Cleo"),
    ]  # fmt: skip
    assert found["left_share"].value == 1.0 and found["categories"] == {"bias": 12}
    assert {tuple(row["reasons"]) for row in disputes(project.connection)} == {
        ("safety flags differ",)
    }
    json.dumps(found, default=asdict)
    assert "Ada (Ada's field), annotator: 12 judgements, gold 100%" in table(found)
    assert "kappa of Ada and Ben: preference –" in table(found)


def test_agreement_is_about_answers_and_not_about_sides(make_project):
    project = make_project([pair(n) for n in range(30)], 1.0)
    for name in ("Ada", "Ben"):
        visitor = project.visitor(name)
        while address := visitor.next():
            left = visitor.get(address).text.split('data-side="a">')[1]
            preference = "a" if left.startswith("first") else "b"
            if address.endswith("/7"):
                preference = "tie"
            visitor.save(address, {"preference": preference, "strength": "1"})
    found = report(project.connection)
    assert found["criteria"]["preference"]["alpha"].value == pytest.approx(1.0)
    assert found["pairs"][0]["kappas"]["preference"].value == pytest.approx(1.0)
    assert found["totals"]["disputed"] == 0
    assert 0.2 < found["left_share"].value < 0.8


def test_an_empty_project_has_a_page_and_a_report(make_project):
    project = make_project([])
    assert report(project.connection)["criteria"]["preference"]["alpha"].value is None
    assert project.visitor("Judge").get("/progress").status_code == 200
