from dataclasses import replace

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.answers import Answer, Answers
from megatron_biollm.evaluation.asking import Asking
from megatron_biollm.evaluation.plan import Plan, as_answered, drawn, prepare, with_stored
from megatron_biollm.evaluation.verdict import guesses, judge, table
from tests.evaluation.quiz import DRUGS, QUIZ, write_files


@pytest.fixture
def data(tmp_path):
    return write_files(tmp_path / "data")


def test_items_are_read_and_runs_laid_out(data):
    asking = Asking(num_fewshot=2, method="likelihood")
    plan = Plan([QUIZ, DRUGS], data, asking, seeds=(4, 5), paraphrases=True, limit=3)
    quiz, drugs = prepare(plan)
    assert len(quiz.items) == 3 and len(quiz.pool) == 4 and not quiz.same_split
    laid_out = [(run.asking.seed, run.asking.paraphrase) for run in quiz.runs]
    assert laid_out == [(4, 0), (5, 0), (4, 1), (4, 2)]
    assert {run.asking.method for run in drugs.runs} == {"generate"}
    assert len({run.file for run in (*quiz.runs, *drugs.runs)}) == 8


def test_without_examples_the_seeds_make_no_difference(data):
    ((run,),) = (one.runs for one in prepare(Plan([QUIZ], data, seeds=(1, 2, 3))))
    assert run.asking == Asking(method="likelihood", seed=1)


def test_examples_may_come_from_the_split_that_is_scored(data):
    plan = Plan([DRUGS], data, Asking(num_fewshot=2), fewshot_splits={"drugs": "test"})
    (one,) = prepare(plan)
    assert one.same_split
    shown = one.examples(one.runs[0].asking).of(one.items[0])
    assert all(example.document != one.items[0].document for example in shown)


def test_everything_wrong_is_told_at_once_before_a_model_is_loaded(data):
    (data / "drugs" / "test.jsonl").unlink()
    plan = Plan([QUIZ, DRUGS], data, conventions={"quiz": {"order": "odd"}})
    with pytest.raises(UserError) as error:
        prepare(plan)
    assert "quiz: quiz.order=odd is none of usual, shifted" in str(error.value)
    assert "drugs/test.jsonl is missing; it is part of the drugs files" in str(error.value)
    assert "--skip-missing" in str(error.value)
    (left,) = prepare(Plan([QUIZ, DRUGS], data, skip_missing=True))
    assert left.benchmark is QUIZ
    with pytest.raises(UserError, match="order=odd"):
        prepare(replace(plan, skip_missing=True))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"limit": 0}, "limit=0 must be at least 1"),
        ({"seeds": (1, 1)}, "all different"),
        ({"splits": {"drugs": "dev"}}, "splits of 'drugs' are given, and it is not asked"),
    ],
)
def test_plans_that_make_no_sense_are_refused(data, values, message):
    with pytest.raises(UserError, match=message):
        Plan([QUIZ], data, **values)


def test_a_limit_draws_the_same_items_in_their_order():
    few = drawn(range(1000), 10)
    assert few == drawn(range(1000), 10) == sorted(few) and max(few) > 500
    assert drawn(range(5), 10) == range(5)


def answered(prepared, folder, predict):
    answers = Answers(folder, {"name": "model", "sha256": "1"})
    for one in prepared:
        for run in one.runs:
            answers.add(run, [Answer(item.id, predict(item, run)) for item in one.items])
    return answers


def test_scores_follow_from_stored_answers(data, tmp_path):
    plan = Plan([QUIZ], data, Asking(num_fewshot=1), seeds=(0, 1), paraphrases=True)
    prepared = prepare(plan)
    answers = answered(
        prepared,
        tmp_path / "answers",
        lambda item, run: item.answer if run.asking.paraphrase == 0 else None,
    )
    found = judge(answers, prepared)
    (one,) = found.results
    assert one.main.value == 1.0 and one.seeds == (0, 1) and one.chance == 0.25
    assert one.prompts.values == {"0": 1.0, "1": 0.0, "2": 0.0}
    text = table(found)
    assert "quiz" in text and "1.0000" in text and "1-shot x 2" in text and "order=usual" in text


def test_stored_answers_are_scored_as_they_were_asked(data, tmp_path):
    plan = Plan([QUIZ], data, limit=5, conventions={"quiz": {"order": "shifted"}})
    answers = answered(prepare(plan), tmp_path / "answers", lambda item, run: 0)
    plain = Plan([QUIZ], data)
    (one,) = prepare(with_stored(plain, answers))
    one = as_answered(one, answers)
    assert len(one.items) == 5 and one.conventions == {"order": "shifted"}
    assert judge(answers, [one]).results[0].limit == 5
    with pytest.raises(UserError, match="was answered with conventions=.*scored with .*usual"):
        as_answered(prepare(Plan([QUIZ], data, limit=5))[0], answers)
    with pytest.raises(UserError, match="was answered with limit=5, and is to be scored with 4"):
        as_answered(prepare(replace(plan, limit=4))[0], answers)
    with pytest.raises(UserError, match="holds no answers to drugs, but to quiz"):
        as_answered(prepare(Plan([DRUGS], data))[0], answers)


def test_guessing_is_measured_where_there_are_choices(data):
    quiz, drugs = prepare(Plan([QUIZ, DRUGS], data))
    assert guesses(QUIZ, quiz.items, quiz.conventions) == (0.25, 0.25)
    assert guesses(DRUGS, drugs.items, drugs.conventions) == (None, None)
