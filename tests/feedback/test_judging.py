import json

import pytest

from megatron_biollm.feedback import desk
from megatron_biollm.feedback.judging import (
    Judgement,
    NotAssigned,
    Overtaken,
    as_draft,
    check,
    current,
    read_draft,
    save,
)
from tests.feedback.project import pair

ALL = Judgement(
    "b", 3, unsafe_a=True, category_a="wrong_dose", error_a=True, rationale="10-fold dose",
    correction="Take 5 mg", correction_base="a",
)  # fmt: skip


@pytest.fixture
def project(make_project):
    project = make_project([pair(0)])
    for name in ("Ada", "Ben"):
        desk.next_item(project.connection, project.account(name), project.clock())
        project.clock.now += 31 * 60
    return project


def put(project, judgement, revision=0, name="Ada", **more):
    return save(
        project.connection, 1, project.account(name), judgement, revision=revision,
        now=project.clock(), **more,
    )  # fmt: skip


def test_a_judgement_is_stored_as_it_was_given_with_the_order_of_answers(project):
    put(project, ALL)
    found, row = current(project.connection, 1, project.account("Ada")["id"])
    assert found == ALL
    left = row["left_position"]
    opinion = project.row("SELECT * FROM opinion")
    assert opinion["preference"] == ("second" if left == 0 else "first")
    assert opinion["correction_base"] == ("first" if left == 0 else "second")
    side = "first" if left == 0 else "second"
    assert (opinion[f"category_{side}"], opinion[f"error_{side}"]) == ("wrong_dose", 1)


def test_a_form_says_the_same_as_the_judgement_that_fills_it():
    assert check(read_draft(as_draft(ALL))) == (ALL, {})


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({}, "preference"),
        ({"preference": "c"}, "preference"),
        ({"preference": "a"}, "strength"),
        ({"preference": "a", "strength": "4"}, "strength"),
        ({"preference": "tie", "unsafe_a": "1"}, "category_a"),
        ({"preference": "tie", "category_b": "nonsense"}, "category_b"),
        ({"preference": "both_unsafe", "category_a": "other"}, "category_b"),
        ({"preference": "tie", "correction_base": "c"}, "correction_base"),
        ({"preference": "tie", "rationale": "x" * 20_001}, "rationale"),
    ],
)
def test_what_is_missing_is_named_by_its_field(form, field):
    judgement, problems = check(form)
    assert judgement is None and list(problems) == [field]


def test_a_strength_counts_for_a_or_b_alone_and_a_category_is_a_flag():
    judgement, _ = check({"preference": "tie", "strength": "2", "category_a": "bias"})
    assert judgement == Judgement("tie", unsafe_a=True, category_a="bias")


def test_what_no_database_can_hold_is_replaced():
    assert read_draft({"rationale": "a\x00b\ud800c\r\nd"}) == {"rationale": "a\ufffdb\ufffdc\nd"}


def test_saving_twice_the_same_is_saving_once(project):
    assert put(project, ALL).revision == put(project, ALL).revision == 1
    assert project.row("SELECT count(*) FROM judgement")[0] == 1


def test_a_second_window_does_not_overwrite_the_first_unseen(project):
    put(project, ALL)
    with pytest.raises(Overtaken) as caught:
        put(project, Judgement("tie"))
    assert (caught.value.current, caught.value.revision) == (ALL, 1)
    assert put(project, Judgement("tie"), revision=1).revision == 2
    (kept,) = project.rows("SELECT * FROM earlier_judgement")
    assert json.loads(kept["content"])["rationale"] == ALL.rationale


def test_two_annotators_on_the_same_item_lose_nothing(project):
    assert not put(project, Judgement("a", 1)).extra
    assert put(project, Judgement("b", 1), name="Ben").extra
    assert project.row("SELECT count(*) FROM judgement")[0] == 2


def test_nobody_judges_what_was_never_given_to_them(project):
    with pytest.raises(NotAssigned):
        put(project, ALL, name="Cleo")


def test_time_spent_is_bounded_by_the_time_that_went_by(project):
    put(project, ALL, active_s=1e6)
    put(project, Judgement("tie"), name="Ben", active_s=40)
    ada, ben = project.rows("SELECT * FROM judgement ORDER BY annotator_id")
    assert ada["active_seconds"] == ada["wall_seconds"] == 2 * 31 * 60
    assert (ben["active_seconds"], ben["wall_seconds"]) == (40, 31 * 60)
