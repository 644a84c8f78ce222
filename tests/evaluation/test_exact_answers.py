import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.exact_answers import names_in, score_factoids, score_lists
from megatron_biollm.evaluation.items import TextItem

BINDS = TextItem("1", "1", "Where to?", ("BCMA", "BCMA\nB-cell maturation antigen", "CD3"))


def values(tally):
    return {name: tally.value(name) for name in tally.scores}


def test_names_stand_on_lines_with_or_without_bullets():
    assert names_in("1. CMT1\n- CMT2.\n\n* cmt1\n(3) 5-HT\n2.5 mg") == [
        "cmt1",
        "cmt2",
        "5-ht",
        "2.5 mg",
    ]


@pytest.mark.parametrize(
    ("text", "mrr", "strict", "lenient"),
    [
        ("BCMA", 1, 1, 1), ("b-cell maturation antigen.", 1, 1, 1), ("CD3", 1, 1, 1),
        ("CD20\nCD19\nCD3", 1 / 3, 0, 1), ("a\nb\nc\nd\ne\nCD3", 0, 0, 0), ("it is BCMA", 0, 0, 0),
        ("", 0, 0, 0), (None, 0, 0, 0),
    ],
)  # fmt: skip
def test_of_five_names_the_first_that_is_right_counts(text, mrr, strict, lenient):
    found = values(score_factoids([BINDS], [text]))
    assert found == pytest.approx({"mrr": mrr, "strict": strict, "lenient": lenient})


@pytest.mark.parametrize(
    ("text", "precision", "recall"),
    [
        ("BCMA\nCD3", 1, 1), ("CD3", 1, 1 / 2), ("CD3\nCD4", 1 / 2, 1 / 2),
        ("BCMA\nB-cell maturation antigen\nCD3", 2 / 3, 1), ("CD3\ncd3", 1, 1 / 2), ("x", 0, 0),
        (None, 0, 0),
    ],
)  # fmt: skip
def test_each_entity_of_a_list_is_found_once(text, precision, recall):
    f1 = 2 * precision * recall / (precision + recall) if precision else 0
    found = values(score_lists([BINDS], [text]))
    assert found == pytest.approx({"f1": f1, "precision": precision, "recall": recall})


def test_scores_are_means_over_questions():
    tally = score_lists([BINDS, BINDS], ["BCMA\nCD3", None])
    assert (tally.value(), tally.unreadable, tally.items) == (0.5, 1, 2)
    for score in (score_lists, score_factoids):
        of_nothing = score([], [])
        assert set(values(of_nothing).values()) == {0.0}
        full = score([BINDS], ["CD3"])
        assert {n: s(full.counts_dk.sum(0)) for n, s in of_nothing.scores.items()} == values(full)


def test_what_is_no_text_is_refused():
    with pytest.raises(UserError, match="prediction for 1 is 3; it must be a text"):
        score_lists([BINDS], [3])
    with pytest.raises(UserError, match="0 predictions for 1 items"):
        score_factoids([BINDS], [])
