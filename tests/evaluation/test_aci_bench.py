import csv

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmarks.aci_bench import ACI_BENCH, DIVISIONS, divide
from tests.evaluation.shared_benchmarks import needs_data, real_items

pytest.importorskip("rouge_score")
HEAD = ["dataset", "encounter_id", "dialogue", "note"]
NOTE = "CHIEF COMPLAINT\n\nBack pain.\n\nPHYSICAL EXAM\n\nTender.\n\nASSESSMENT AND PLAN\n\nRest."


def read(tmp_path, *rows):
    path = tmp_path / "t.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return ACI_BENCH.read(ACI_BENCH.source(tmp_path, files={"table": str(path)}), {})


def test_a_visit_is_read(tmp_path):
    (item,) = read(tmp_path, HEAD, ["aci", "D2N1", "[doctor] hi", NOTE])
    assert (item.id, item.text, item.references) == ("D2N1", "[doctor] hi", (NOTE,))
    assert (item.part, item.group) == ("aci", "")


def test_a_note_is_divided_where_known_headings_stand():
    assert divide(NOTE) == {
        "subjective": "CHIEF COMPLAINT\n\nBack pain.",
        "objective_exam": "PHYSICAL EXAM\n\nTender.",
        "assessment_and_plan": "ASSESSMENT AND PLAN\n\nRest.",
    }


def test_a_division_ends_where_another_begins_and_begins_once():
    note = "She came.\nExam: fine\nRESULTS\nx-ray\nMEDICATIONS\nnone\nPLAN\nrest\nRESULTS\nmore"
    assert divide(note) == {
        "subjective": "She came.",
        "objective_exam": "Exam: fine",
        "objective_results": "RESULTS\nx-ray\nMEDICATIONS\nnone",
        "assessment_and_plan": "PLAN\nrest\nRESULTS\nmore",
    }
    assert divide("The plan is rest.") == {"subjective": "The plan is rest."}
    assert divide("") == {}


def test_divisions_are_scored_apart(tmp_path):
    items = read(tmp_path, HEAD, ["aci", "D2N1", "hi", NOTE])
    written = "CHIEF COMPLAINT\n\nBack pain.\n\nRESULTS\n\nNone.\n\nPLAN\n\nWork."
    parts = ACI_BENCH.score(items, [written], ACI_BENCH.choose({})).parts
    assert {name: (part.items, round(part.value(), 3)) for name, part in parts.items()} == {
        "subjective": (1, 1.0),
        "objective_exam": (1, 0.0),
        "objective_results": (1, 0.0),
        "assessment_and_plan": (1, round(2 / 6, 3)),
    }
    without = ACI_BENCH.score(items, [NOTE], ACI_BENCH.choose({})).parts
    assert without["objective_results"].items == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([HEAD, ["aci", "D2N1", "hi"]], "t.csv:2 has 3 columns; it must have 4"),
        ([["dataset", "id", "dialogue", "note"]], "t.csv:1 has the columns"),
        ([HEAD], "t.csv holds no item"),
    ],
)
def test_another_format_is_refused_with_its_line(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, *rows)


def test_an_absent_file_is_named_with_its_download(tmp_path):
    with pytest.raises(UserError, match=r"clinicalnlp_taskB_test1.csv is missing.*ACI-Bench"):
        ACI_BENCH.read(ACI_BENCH.source(tmp_path), {})


@needs_data
def test_the_real_files_hold_what_they_should():
    splits = {name: real_items(ACI_BENCH, name) for name in ACI_BENCH.splits}
    assert {name: len(items) for name, items in splits.items()} == {
        "test1": 40, "test2": 40, "test3": 40, "valid": 20, "train": 67,
    }  # fmt: skip
    notes = [one.references[0] for items in splits.values() for one in items]
    divided = [divide(note) for note in notes]
    assert all({"subjective", "assessment_and_plan"} <= set(one) for one in divided)
    assert sum(len(one) == len(DIVISIONS) for one in divided) > 0.7 * len(notes)
    some, conventions = splits["test1"][:2], ACI_BENCH.choose({})
    gold = [one.references[0] for one in some]
    tally = ACI_BENCH.score(some, gold, conventions)
    assert {tally.value(), *(part.value() for part in tally.parts.values())} == {1.0}
    assert ACI_BENCH.score(some, [gold[0], ""], conventions).value() == 0.5
    assert ACI_BENCH.score(some, [None, None], conventions).value() == 0.0
