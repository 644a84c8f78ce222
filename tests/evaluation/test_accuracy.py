import numpy as np
import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.accuracy import headline, score_choices
from megatron_biollm.evaluation.items import ChoiceItem

LABELS = ("yes", "no", "maybe")


def items(answers, groups=None, documents=None):
    count = len(answers)
    groups, documents = groups or [""] * count, documents or [str(i) for i in range(count)]
    return [
        ChoiceItem(str(i), documents[i], "?", LABELS, int(answers[i]), group=groups[i])
        for i in range(count)
    ]


def test_right_answers_are_counted_by_hand():
    tally = score_choices(items([0, 1, 2, 1]), [0, 1, 1, None])
    assert (tally.value(), tally.items, tally.unreadable) == (0.5, 4, 1)


def test_what_cannot_be_read_counts_as_wrong_or_as_the_first_choice():
    asked = items([0, 1, 0])
    assert score_choices(asked, [None, None, 0]).value() == pytest.approx(1 / 3)
    assert score_choices(asked, [None, None, 0], "first").value() == pytest.approx(2 / 3)
    assert score_choices(asked, [None, None, 0], "first").unreadable == 2


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("unreadable", [0.0, 0.2])
def test_scores_equal_scikit_learns(seed, unreadable):
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(seed)
    answers, chosen = random.integers(0, 3, 50), random.integers(0, 3, 50)
    chosen[random.random(50) < unreadable] = -1
    predictions = [None if c < 0 else int(c) for c in chosen]
    tally = score_choices(items(answers), predictions, classes=LABELS)
    macro = metrics.f1_score(answers, chosen, labels=[0, 1, 2], average="macro", zero_division=0)
    assert tally.value("accuracy") == pytest.approx(metrics.accuracy_score(answers, chosen))
    assert tally.value("macro_f1") == pytest.approx(macro)


def test_a_class_that_is_nowhere_has_f1_zero():
    assert score_choices(items([0, 0]), [0, 0], classes=LABELS).value("macro_f1") == 1 / 3


def test_groups_are_averaged_and_tabled():
    tally = score_choices(
        items([0, 0, 0, 1], groups=["b", "b", "b", "a"]), [0, 1, 1, 1], over_groups=True
    )
    assert tally.value("accuracy") == 0.5
    assert tally.value("group_accuracy") == pytest.approx((1 / 3 + 1) / 2)
    assert {name: part.value() for name, part in tally.parts.items()} == {
        "a": 1.0,
        "b": pytest.approx(1 / 3),
    }
    assert headline(tally, "group_accuracy").headline == "group_accuracy"


def test_a_group_that_a_sample_leaves_out_does_not_count():
    tally = score_choices(items([0, 0], groups=["a", "b"]), [0, 1], over_groups=True)
    score = tally.scores["group_accuracy"]
    assert score(
        np.stack([tally.counts_dk[0], tally.counts_dk[1], tally.counts_dk.sum(0)])
    ).tolist() == [1.0, 0.0, 0.5]


def test_items_of_a_document_are_counted_together():
    tally = score_choices(items([0, 1, 2], documents=["a", "b", "a"]), [0, 0, 2])
    assert tally.documents == ("a", "b")
    assert tally.counts_dk.tolist() == [[2, 2], [0, 1]]


def test_nothing_asked_scores_nothing():
    tally = score_choices([], [], classes=LABELS, over_groups=True)
    assert [tally.value(name) for name in tally.scores] == [0, 0, 0]


@pytest.mark.parametrize("wrong", [3, -1, "yes", 0.0])
def test_a_prediction_that_is_no_choice_is_refused(wrong):
    with pytest.raises(UserError, match=r"prediction for 0 is .* index of one of 3 choices"):
        score_choices(items([0]), [wrong])


def test_a_prediction_too_few_is_refused():
    with pytest.raises(UserError, match="1 predictions for 2 items"):
        score_choices(items([0, 1]), [0])


def test_macro_f1_of_items_with_other_choices_is_refused():
    other = ChoiceItem("9", "9", "?", ("a", "b"), 0)
    with pytest.raises(UserError, match="choices of 9 are a, b; .* same ones .*: yes, no, maybe"):
        score_choices([*items([0]), other], [0, 0], classes=LABELS)


def test_what_counts_mean_does_not_depend_on_the_items():
    asked, chosen = items([0, 1, 2, 1], groups=["a", "b", "a", "b"]), [0, 1, 1, None]
    tally = score_choices(asked, chosen, classes=LABELS, over_groups=True)
    of_nothing = score_choices([], [], classes=LABELS, over_groups=True).scores
    total = tally.counts_dk.sum(0)
    assert {name: score(total) for name, score in of_nothing.items()} == {
        name: tally.value(name) for name in tally.scores
    }
