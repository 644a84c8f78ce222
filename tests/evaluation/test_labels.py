"""Scores of labels are scikit-learn's."""

import numpy as np
import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.items import LabelsItem
from megatron_biollm.evaluation.labels import labels_tally

CHOICES = ("a", "b", "c", "d")


def label_items(has):
    return [LabelsItem(str(at), str(at), "text", CHOICES, names(row)) for at, row in enumerate(has)]


def names(row):
    return tuple(name for name, one in zip(CHOICES, row, strict=True) if one)


@pytest.mark.parametrize("seed", range(4))
def test_micro_macro_and_example_f1_equal_scikit_learn_s(seed):
    f1_score = pytest.importorskip("sklearn.metrics").f1_score
    author = np.random.default_rng(seed)
    has = author.random((200, 4)) < 0.3
    told = np.where(author.random((200, 4)) < 0.8, has, author.random((200, 4)) < 0.5)
    has[:, 0] |= ~has.any(1)
    tally = labels_tally(label_items(has), [names(row) for row in told])
    for name, average in (("micro_f1", "micro"), ("macro_f1", "macro"), ("example_f1", "samples")):
        expected = f1_score(has, told, average=average, zero_division=0)
        assert tally.value(name) == pytest.approx(expected, abs=1e-12)
    each = f1_score(has, told, average=None)
    assert [tally.parts[name].value() for name in CHOICES] == pytest.approx(each.tolist())


def test_the_headline_is_the_one_asked_for():
    tally = labels_tally(label_items([[1, 0, 0, 0], [0, 1, 1, 0]]), [("a",), None], "example_f1")
    assert (tally.headline, tally.value(), tally.unreadable) == ("example_f1", 0.5, 1)


def test_a_text_without_labels_is_right_where_none_is_told():
    assert labels_tally(label_items([[0, 0, 0, 0]]), [()]).value("example_f1") == 1.0


def test_a_label_that_is_no_choice_is_refused():
    with pytest.raises(UserError, match="'e' is none of a, b, c, d"):
        labels_tally(label_items([[1, 0, 0, 0]]), [("e",)])
