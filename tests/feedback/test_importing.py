import json

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.feedback.importing import (
    import_file,
    import_two_files,
    read_form,
    tell_form,
)
from tests.feedback.project import write_lines

USER = [{"role": "user", "content": "How much?"}]
ANSWERS = {
    "prompt": "How much?",
    "answers": [{"model": "m1", "text": "5 mg"}, {"model": "m2", "text": "50 mg"}],
}
HH = {
    "chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: How much?\n\nAssistant: 5 mg",
    "rejected": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: How much?\n\nAssistant: 50 mg",
}
BINARIZED = {
    "prompt": "How much?",
    "prompt_id": "f0e37e9f",
    "chosen": [*USER, {"role": "assistant", "content": "5 mg"}],
    "rejected": [*USER, {"role": "assistant", "content": "50 mg"}],
    "score_chosen": 8.5,
    "score_rejected": 3.0,
}


def aspect(rating):
    return {"Rating": rating, "Rationale": "..."}


ULTRAFEEDBACK = {
    "source": "evol_instruct",
    "instruction": "How much?",
    "models": ["alpaca-7b", "gpt-4"],
    "completions": [
        {"model": "alpaca-7b", "response": "50 mg", "overall_score": 10,
         "annotations": {"helpfulness": aspect("1"), "honesty": aspect("N/A")}},
        {"model": "gpt-4", "response": "5 mg", "overall_score": 8.5,
         "annotations": {"helpfulness": aspect("5"), "honesty": aspect("4")}},
    ],
}  # fmt: skip
TASK = {
    "id": 7,
    "data": {"prompt": "How much?", "text1": "50 mg", "text2": "5 mg"},
    "annotations": [
        {"completed_by": 3, "lead_time": 12.5, "was_cancelled": False,
         "result": [{"from_name": "pw", "to_name": "text1,text2", "type": "pairwise",
                     "value": {"selected": "right"}}]},
        {"completed_by": {"id": 4, "email": "b@x.org"}, "was_cancelled": True, "result": []},
    ],
}  # fmt: skip
FORMS = {
    "answers": ANSWERS,
    "hh": HH,
    "preferences": BINARIZED,
    "ultrafeedback": ULTRAFEEDBACK,
    "label-studio": TASK,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_told_by_its_first_row_and_read(tmp_path, form):
    path = write_lines(tmp_path / "data.jsonl", [FORMS[form]])
    assert tell_form(path) == form
    (item,) = read_form(form, path)
    assert item.prompt[-1] == USER[0]
    assert {answer.text for answer in item.answers} == {"5 mg", "50 mg"}
    for opinion in item.opinions:
        assert item.answers[["first", "second"].index(opinion.preference)].text == "5 mg"
    assert len(item.opinions) == (0 if form == "answers" else 1)


@pytest.mark.parametrize("form", FORMS)
def test_importing_again_adds_nothing(make_project, tmp_path, form):
    project = make_project([], people={})
    path = write_lines(tmp_path / "data.jsonl", [FORMS[form]])
    first = import_file(project.connection, path, 0.0)
    again = import_file(project.connection, path, 1.0)
    assert (first.added, first.there) == (1, 0)
    assert (again.added, again.there, again.opinions) == (0, 1, 0)


def test_the_same_pair_from_another_file_in_another_order_is_the_same_item(make_project, tmp_path):
    project = make_project([], people={})
    for form in ("ultrafeedback", "preferences", "label-studio"):
        path = write_lines(tmp_path / f"{form}.jsonl", [FORMS[form]])
        import_file(project.connection, path, 0.0)
    assert project.row("SELECT count(*) FROM item")[0] == 1
    opinions = project.rows("SELECT * FROM opinion ORDER BY id")
    assert [o["name"] for o in opinions] == ["ultrafeedback", "preferences", "label-studio 3"]
    assert {o["preference"] for o in opinions} == {"second"}  # 5 mg, which the first file has last
    assert [o["role"] for o in opinions] == ["dataset", "dataset", "annotator"]
    assert opinions[2]["wall_seconds"] == 12.5


def test_preferences_of_data_sets_are_no_ratings(make_project, tmp_path):
    project = make_project([])
    import_file(project.connection, write_lines(tmp_path / "hh.jsonl", [HH]), 0.0)
    assert len(project.visitor("Ada").judge_all()) == 1
    assert project.row("SELECT count(*) FROM dispute")[0] == 0


def test_known_answers_become_gold_items(make_project, tmp_path):
    project = make_project([], people={})
    gold = {**ANSWERS, "gold": "second"}
    import_file(project.connection, write_lines(tmp_path / "a.jsonl", [ANSWERS]), 0.0)
    assert project.row("SELECT gold FROM item")[0] is None
    swapped = {**gold, "answers": gold["answers"][::-1]}
    import_file(project.connection, write_lines(tmp_path / "b.jsonl", [swapped]), 0.0)
    assert project.row("SELECT gold FROM item")[0] == "first"  # as the item's answers stand
    import_file(project.connection, write_lines(tmp_path / "hh.jsonl", [HH]), 0.0, gold=True)
    assert project.rows("SELECT gold FROM item")[1][0] == "first"


def test_of_many_answers_pairs_are_drawn_the_same_every_time(tmp_path):
    row = {"prompt": "q", "answers": [{"model": f"m{n}", "text": f"t{n}"} for n in range(4)]}
    path = write_lines(tmp_path / "a.jsonl", [row])
    drawn = [[i.answers for i in read_form("answers", path, "", 3, seed=1)] for _ in range(2)]
    assert drawn[0] == drawn[1] and len({*drawn[0]}) == 3
    assert len(list(read_form("answers", path, "", 99))) == 6


def test_generations_of_two_checkpoints_are_joined(make_project, tmp_path):
    project = make_project([], people={})
    one = [{"id": n, "prompt": f"q{n}", "text": f"one {n}"} for n in range(3)]
    two = [{"id": n, "prompt": f"q{n}", "completion": f"two {n}"} for n in (2, 0, 1)]
    (tmp_path / "step_1.json").write_text(json.dumps(one))  # as tools/generate.py --json
    second = write_lines(tmp_path / "step_2.jsonl", two)
    import_two_files(project.connection, tmp_path / "step_1.json", second, 0.0)
    rows = project.rows("SELECT * FROM answer ORDER BY item_id, position")
    assert [row["text"] for row in rows[:2]] == ["one 0", "two 0"]
    assert {row["model"] for row in rows} == {"step_1", "step_2"}


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ([{"id": 1, "prompt": "q", "text": "b"}], "in one of"),
        ([{"id": 0, "prompt": "other", "text": "b"}], "share the id '0', not the prompt"),
        ([{"id": 0, "prompt": "q", "text": "b"}] * 2, "have the same id"),
        ([{"id": 0, "prompt": "q", "txt": "b"}], "has no answer"),
    ],
)
def test_generations_that_do_not_match_are_refused(make_project, tmp_path, second, words):
    project = make_project([], people={})
    first = write_lines(tmp_path / "a.jsonl", [{"id": 0, "prompt": "q", "text": "a"}])
    with pytest.raises(UserError, match=words):
        import_two_files(project.connection, first, write_lines(tmp_path / "b.jsonl", second), 0.0)


def test_pairs_that_cannot_be_compared_are_counted_and_left_out(make_project, tmp_path):
    project = make_project([], people={})
    rows = [
        ANSWERS,
        {"prompt": "q", "answers": ["same", " same "]},
        {"prompt": "q", "answers": ["", "text"]},
        {"prompt": "q", "answers": ["\n", "text"]},
    ]
    done = import_file(project.connection, write_lines(tmp_path / "a.jsonl", rows), 0.0)
    assert done.added == 1
    assert done.dropped == {"both answers are equal": 1, "an answer is empty": 2}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "a.jsonl:2 is no JSON"),
        ([1], "a.jsonl:2 is no JSON object"),
        ({"answers": ["a", "b"]}, "a.jsonl:2 has no prompt"),
        ({"prompt": "q", "answers": ["a"]}, "no two answers"),
        ({"prompt": "q", "answers": ["a", {"txt": 1}]}, "has no answer"),
        ({"prompt": "q", "answers": ["a", 5]}, "neither text nor an object"),
        ({"prompt": [], "answers": ["a", "b"]}, "has no messages"),
        ({"prompt": [{"role": "doctor", "content": "x"}], "answers": ["a", "b"]}, "role 'doctor'"),
        ({"prompt": [{"role": "assistant", "content": "x"}], "answers": ["a", "b"]}, "end with"),
        ({"prompt": "q", "answers": ["a", "b"], "gold": "A"}, "give one of"),
        ({"prompt": "q", "answers": ["a", "b", "c"], "gold": "first"}, "give two"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_imported(make_project, tmp_path, row, words):
    project = make_project([], people={})
    path = write_lines(tmp_path / "a.jsonl", [ANSWERS])
    path.write_text(path.read_text() + (row if isinstance(row, str) else json.dumps(row)))
    with pytest.raises(UserError, match=words):
        import_file(project.connection, path, 0.0)
    assert project.row("SELECT count(*) FROM item")[0] == 0


@pytest.mark.parametrize(
    ("row", "form", "words"),
    [
        ({"chosen": "a", "rejected": "b"}, "preferences", "has no 'prompt'"),
        ({"chosen": "\n\nHuman: a\n\nAssistant: b"}, "hh", "has no transcript"),
        ({**HH, "rejected": HH["rejected"].replace("Hello", "Ho")}, "hh", "differ before"),
        ({"data": {"prompt": "q", "text1": "a"}}, "label-studio", "no two answers"),
        ({"data": {"text1": "a", "text2": "b"}}, "label-studio", "no prompt"),
        ({"prompt": "q", "something": 1}, "auto", "none of the forms"),
    ],
)
def test_what_is_not_of_its_form_is_refused(make_project, tmp_path, row, form, words):
    project = make_project([], people={})
    with pytest.raises(UserError, match=words):
        import_file(project.connection, write_lines(tmp_path / "a.jsonl", [row]), 0.0, form)


def test_what_no_database_can_hold_is_replaced_on_the_way_in(make_project, tmp_path):
    project = make_project([], people={})
    (tmp_path / "a.jsonl").write_text(
        '{"prompt": "q\\ud800", "answers": ["\\u0000 a", "\\ud83d b"]}', encoding="utf-8"
    )
    assert import_file(project.connection, tmp_path / "a.jsonl", 0.0).added == 1
    assert [r[0] for r in project.rows("SELECT text FROM answer")] == ["\ufffd a", "\ufffd b"]


def test_a_data_set_cannot_take_the_name_of_a_person(make_project, tmp_path):
    project = make_project([])
    path = write_lines(tmp_path / "a.jsonl", [BINARIZED])
    with pytest.raises(UserError, match="'Ada' is an account of role annotator"):
        import_file(project.connection, path, 0.0, name="Ada")
