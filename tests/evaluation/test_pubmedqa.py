import json
from collections import Counter

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmarks.pubmedqa import PUBMEDQA
from tests.evaluation.shared_benchmarks import check_choices, needs_data, real_items

ROWS = {
    "11": {"QUESTION": "Is it?", "CONTEXTS": ["Rats.", "It was."], "final_decision": "yes"},
    "12": {"QUESTION": "Does it?", "CONTEXTS": ["Mice."], "final_decision": "maybe"},
}


def read(tmp_path, split="test", rows=ROWS, labels=None, **conventions):
    folder = tmp_path / "pubmedqa"
    folder.mkdir(exist_ok=True)
    text = rows if isinstance(rows, str) else json.dumps(rows)
    (folder / "ori_pqal.json").write_text(text)
    (folder / "test_ground_truth.json").write_text(json.dumps(labels or {"12": "maybe"}))
    return PUBMEDQA.read(PUBMEDQA.source(tmp_path, split), PUBMEDQA.choose(conventions))


def test_the_labels_name_the_test_set_and_the_rest_is_for_training(tmp_path):
    assert [item.id for item in read(tmp_path)] == ["12"]
    assert [item.id for item in read(tmp_path, "train")] == ["11"]
    assert [item.id for item in read(tmp_path, "all")] == ["11", "12"]


def test_a_question_is_read_with_its_abstract_or_without(tmp_path):
    item = read(tmp_path, "train")[0]
    assert (item.question, item.context, item.choices[item.answer]) == (
        "Is it?", "Rats.\nIt was.", "yes",
    )  # fmt: skip
    assert read(tmp_path, "train", context="without")[0].context == ""


def test_labels_that_do_not_fit_the_questions_are_refused(tmp_path):
    for labels, found in (({"12": "no"}, "'maybe'"), ({"13": "no"}, "None")):
        with pytest.raises(UserError, match=rf"truth.json: 1. is 'no', but {found} in .*pqal.json"):
            read(tmp_path, labels=labels)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('{"11": {"QUESTION"', "is not JSON .*download it again"),
        ("[]", "is no JSON object of PubMed ids"),
        ({"11": {**ROWS["11"], "final_decision": "Yes"}}, "11: the label is 'Yes'; it must be one"),
        ({"11": {"QUESTION": "Is it?", "final_decision": "no"}}, "11 has no 'CONTEXTS' but"),
        ({"11": "Is it?"}, "11 has no 'final_decision' but str"),
    ],
)
def test_another_format_is_refused_with_its_place(tmp_path, rows, message):
    with pytest.raises(UserError, match=rf"ori_pqal.json.*{message}"):
        read(tmp_path, "all", rows=rows)


def test_an_absent_file_is_named_with_its_download(tmp_path):
    with pytest.raises(UserError, match=r"ori_pqal.json is missing.*github.com/pubmedqa"):
        PUBMEDQA.read(PUBMEDQA.source(tmp_path), PUBMEDQA.choose({}))


def test_macro_f1_is_scored_too(tmp_path):
    items = read(tmp_path, "all")
    tally = PUBMEDQA.score(items, [0, 0], PUBMEDQA.choose({}))
    assert tally.value("macro_f1") == pytest.approx((2 / 3 + 0 + 0) / 3)


@needs_data
def test_the_real_files_hold_what_they_should():
    items = real_items(PUBMEDQA)
    assert Counter(item.choices[item.answer] for item in items) == {
        "yes": 276,
        "no": 169,
        "maybe": 55,
    }
    assert len(real_items(PUBMEDQA, "train")) == 500
    assert all(item.context for item in items)
    check_choices(PUBMEDQA, items)
    gold = [item.answer for item in items]
    assert PUBMEDQA.score(items, gold, PUBMEDQA.choose({})).value("macro_f1") == 1.0
