import json

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.answers import INDEX, Answer, Answers, Run, digest
from megatron_biollm.evaluation.asking import Asking
from tests.evaluation.test_prompts import ITEMS

PREDICTIONS = [
    Answer("c", 1, (), (-1.5, -0.5), "prompt"),
    Answer("s", ITEMS[1].spans, ("Drug\tAspirin",)),
    Answer("t", (("A", "B", "inhibitor"),), ("A\tB\tinhibitor",)),
    Answer("x", None, ("", " ")),
    Answer("l", ("growth",), ("growth",)),
    Answer("n", 7.25, ("7.25",)),
]


def stored(folder):
    answers = Answers(folder, {"name": "model", "sha256": "1"})
    run = Run("quiz", "test", {"a": "b"}, Asking(seed=3), items_sha256=digest(ITEMS))
    answers.add(run, PREDICTIONS)
    return answers, run


def test_what_was_stored_is_read_again(tmp_path):
    _, run = stored(tmp_path)
    answers = Answers.open(tmp_path)
    assert answers.model == {"name": "model", "sha256": "1"} and answers.runs == [run]
    found = answers.predictions(run, ITEMS)
    assert found == [one.prediction for one in PREDICTIONS]
    assert answers.holds(run) and answers.holds(Run(**{**vars(run), "seconds": 9.0}))
    assert not answers.holds(Run(**{**vars(run), "limit": 3}))


def test_a_run_takes_the_place_of_an_older_one_in_its_file(tmp_path):
    answers, run = stored(tmp_path)
    later = Run(**{**vars(run), "split": "dev"})
    answers.add(later, PREDICTIONS)
    assert Answers.open(tmp_path).runs == [later]


def test_answers_to_other_items_are_refused(tmp_path):
    answers, run = stored(tmp_path)
    with pytest.raises(UserError, match="answers other items than quiz has now"):
        answers.predictions(run, ITEMS[:-1])


def test_answers_made_elsewhere_need_ids_and_texts_alone(tmp_path):
    rows = [{"id": "c", "text": "The answer is B."}, {"id": "n", "prediction": 7}]
    (tmp_path / "quiz.jsonl").write_text("\n".join(map(json.dumps, rows)))
    answers = Answers.open(tmp_path)
    (run,) = answers.runs
    assert answers.model["name"] == tmp_path.name
    assert answers.predictions(run, [ITEMS[0], ITEMS[5]]) == [1, 7.0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "z", "text": "A"}, r"quiz.jsonl:1 answers item 'z', which the split does not have"),
        ({"id": "c"}, "has neither 'prediction' nor 'text'"),
        ({"id": "c", "prediction": 2}, "2 is no prediction for a ChoiceItem .*0 to 1"),
        ({"id": "c", "prediction": "B"}, "'B' is no prediction for a ChoiceItem"),
    ],
)
def test_answers_that_cannot_belong_to_an_item_are_named(tmp_path, row, message):
    (tmp_path / "quiz.jsonl").write_text(json.dumps(row))
    answers = Answers.open(tmp_path)
    with pytest.raises(UserError, match=message):
        answers.predictions(answers.runs[0], ITEMS[:1])


def test_items_without_an_answer_are_counted(tmp_path):
    (tmp_path / "quiz.jsonl").write_text('{"id": "c", "text": "A"}\n')
    answers = Answers.open(tmp_path)
    with pytest.raises(UserError, match="no answer to 5 of 6 items, such as 's'"):
        answers.predictions(answers.runs[0], ITEMS)
    (tmp_path / "quiz.jsonl").write_text('{"id": "c", "text": "A"}\n' * 2)
    with pytest.raises(UserError, match="quiz.jsonl:2 answers item 'c', a second time"):
        answers.predictions(answers.runs[0], ITEMS)


def test_a_damaged_index_is_named(tmp_path):
    stored(tmp_path)
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(UserError, match=r"answers.json is damaged"):
        Answers.open(tmp_path)
    with pytest.raises(UserError, match=r"holds neither answers.json nor BENCHMARK.jsonl"):
        Answers.open(tmp_path / "nowhere")
