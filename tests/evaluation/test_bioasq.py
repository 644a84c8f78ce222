import json
from collections import Counter

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmarks.bioasq import BIOASQ
from tests.evaluation.shared_benchmarks import check_choices, needs_data, real_items

ROW = {
    "id": "a1", "type": "yesno", "body": "Is it?", "exact_answer": "Yes",
    "snippets": [{"text": " It is. "}, {"text": "So it is."}],
}  # fmt: skip


def read(tmp_path, *rows, text=None, **conventions):
    path = tmp_path / "golden.json"
    path.write_text(json.dumps({"questions": rows}) if text is None else text)
    source = BIOASQ.source(tmp_path, "other", {"questions": str(path)})
    return BIOASQ.read(source, BIOASQ.choose(conventions))


def test_yes_and_no_are_read_in_any_spelling_and_other_types_left_out(tmp_path):
    items = read(
        tmp_path,
        ROW,
        {**ROW, "id": "a2", "type": "summary"},
        {**ROW, "id": "a3", "exact_answer": "no"},
    )
    assert [(item.id, item.choices[item.answer]) for item in items] == [("a1", "yes"), ("a3", "no")]


def test_a_question_stands_alone_or_with_its_snippets(tmp_path):
    assert read(tmp_path, ROW)[0].context == ""
    assert read(tmp_path, ROW, context="with")[0].context == "It is.\nSo it is."


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{**ROW, "exact_answer": "maybe"}], "a1: the answer is 'maybe'; it must be yes or no"),
        ([{**ROW, "exact_answer": ["yes"]}], "a1: 'exact_answer' is .* must be of type str"),
        ([{"id": "a1", "type": "yesno", "body": "Is it?"}], "a1 has no 'exact_answer'"),
        ([ROW, ROW], "question a1 is in .*golden.json too"),
        ([{**ROW, "type": "list"}], "no question is of type 'yesno'"),
        ([{**ROW, "snippets": ["x"]}], "a1 has no 'text' but str"),
    ],
)
def test_another_format_is_refused_with_its_place(tmp_path, rows, message):
    with pytest.raises(UserError, match=rf"golden.json.*{message}"):
        read(tmp_path, *rows, context="with")


def test_a_file_that_was_cut_off_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"golden.json:1 is not JSON"):
        read(tmp_path, text='{"questions": [{"id"')
    with pytest.raises(UserError, match=r"golden.json has no 'questions' but 'data'"):
        read(tmp_path, text='{"data": []}')


def test_an_absent_batch_or_unnamed_file_is_asked_for(tmp_path):
    with pytest.raises(UserError, match=r"Task7BGoldenEnriched/7B1_golden.json is missing.*BioASQ"):
        BIOASQ.read(BIOASQ.source(tmp_path), BIOASQ.choose({}))
    with pytest.raises(UserError, match=r"no usual name for 'questions'"):
        BIOASQ.read(BIOASQ.source(tmp_path, "other"), BIOASQ.choose({}))


def test_macro_f1_leads_where_it_is_asked_for(tmp_path):
    items = read(tmp_path, ROW, {**ROW, "id": "a2"})
    tally = BIOASQ.score(items, [0, 1], BIOASQ.choose({"metric": "macro_f1"}))
    assert (tally.headline, tally.value()) == ("macro_f1", pytest.approx(1 / 3))


@needs_data
def test_the_real_files_hold_what_they_should():
    items = real_items(BIOASQ)
    assert Counter(item.choices[item.answer] for item in items) == {"yes": 395, "no": 223}
    assert {s: len(real_items(BIOASQ, s)) for s in ("7B", "8B", "9B", "10B", "11B")} == {
        "7B": 140, "8B": 152, "9B": 117, "10B": 123, "11B": 86,
    }  # fmt: skip
    check_choices(BIOASQ, items)
    assert all(item.context for item in real_items(BIOASQ, "7B", context="with"))
