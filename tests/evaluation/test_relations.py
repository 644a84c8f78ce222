"""Relations are scored without the label that there is none, as scikit-learn does."""

import numpy as np
import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmarks.kd_dti import KD_DTI
from megatron_biollm.evaluation.items import ChoiceItem, TripleItem
from megatron_biollm.evaluation.relations import pair_tally, triple_tally
from megatron_biollm.evaluation.suite import all_benchmarks

NAMES = ("a", "b", "c")


def pair_items(answers, choices=("none", *NAMES)):
    return [
        ChoiceItem(str(place), str(place // 3), "text", choices, int(answer))
        for place, answer in enumerate(answers)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_micro_and_macro_f1_equal_scikit_learn_s(seed):
    f1_score = pytest.importorskip("sklearn.metrics").f1_score
    author = np.random.default_rng(seed)
    answers = author.choice(4, 500, p=[0.7, 0.1, 0.15, 0.05])
    told = np.where(author.random(500) < 0.6, answers, author.integers(0, 4, 500))
    tally = pair_tally(pair_items(answers), told.tolist(), NAMES)
    for name, average in (("micro_f1", "micro"), ("macro_f1", "macro")):
        expected = f1_score(answers, told, labels=[1, 2, 3], average=average)
        assert tally.value(name) == pytest.approx(expected, abs=1e-12)
    assert tally.value("detection_f1") == pytest.approx(f1_score(answers > 0, told > 0), abs=1e-12)
    each = f1_score(answers, told, labels=[1, 2, 3], average=None)
    assert [tally.parts[name].value() for name in NAMES] == pytest.approx(each.tolist(), abs=1e-12)


def test_the_headline_is_the_one_asked_for():
    tally = pair_tally(pair_items([1, 2]), [1, 0], NAMES, "macro_f1")
    assert tally.headline == "macro_f1"
    assert tally.value() == pytest.approx(1 / 3)


def test_an_unreadable_answer_tells_no_relation():
    tally = pair_tally(pair_items([1, 0]), [None, None], NAMES)
    assert (tally.value(), tally.unreadable) == (0.0, 2)
    assert tally.counts_dk[:, -3:].tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("wrong", [4, -1, "a"])
def test_a_prediction_that_is_no_choice_is_refused(wrong):
    with pytest.raises(UserError, match="is no choice; give 0 to 3"):
        pair_tally(pair_items([1]), [wrong], NAMES)


def test_one_prediction_is_needed_for_each_pair():
    with pytest.raises(UserError, match="0 predictions for 1 items"):
        pair_tally(pair_items([1]), [], NAMES)


def triple_items(*triples):
    return [TripleItem("1", "1", "text", triples)]


def test_a_triple_told_twice_counts_once():
    items = triple_items(("x", "y", "binds"), ("x", "z", "binds"))
    tally = triple_tally(items, [(("x", "y", "binds"), ("x", "y", "binds"), ("q", "y", "binds"))])
    assert tally.counts_dk.tolist() == [[1, 2, 2]]


def test_biored_compares_pairs_in_any_order_and_what_the_convention_says():
    benchmark = all_benchmarks()["biored"]
    items = triple_items(("D1", "6528", "Bind", "Novel"))
    told = [(("6528", "D1", "Bind", "No"),)]
    other = [(("6528", "D1", "Association", "Novel"),)]
    values = {
        match: tuple(
            benchmark.score(items, one, {"match": match, "entities": "given"}).value()
            for one in (told, other)
        )
        for match in ("pair", "pair_and_type", "pair_type_and_novelty")
    }
    assert values == {
        "pair": (1.0, 1.0), "pair_and_type": (1.0, 0.0), "pair_type_and_novelty": (0.0, 0.0)
    }  # fmt: skip


def test_kd_dti_leaves_case_and_spaces_out_of_the_comparison():
    items = triple_items(("Psoralen", "Monoamine oxidase (MAO)", "Inhibitor"))
    told = [(("psoralen", "monoamine  oxidase (MAO)", "inhibitor"),)]
    assert KD_DTI.score(items, told, {"scoring": "micro"}).value() == 1.0


@pytest.mark.parametrize("target", ["Janus kinase 3", "Janus kinase-type 3 (J)", "kinase X (jak3)"])
def test_biogpt_s_scoring_takes_the_name_or_its_abbreviation(target):
    items = triple_items(("PNU156804", "Janus kinase 3 (JAK-3)", "inhibitor"))
    told = [(("PNU156804", target, "inhibitor"),)]
    assert KD_DTI.score(items, told, {"scoring": "biogpt"}).value() == 1.0
    assert KD_DTI.score(items, told, {"scoring": "micro"}).value() == 0.0


def test_biogpt_s_scoring_is_the_mean_of_documents():
    items = [*triple_items(("a", "b", "c")), TripleItem("2", "2", "t", (("d", "e", "f"),))]
    told = [(("a", "b", "c"), ("x", "y", "z")), ()]
    tally = KD_DTI.score(items, told, {"scoring": "biogpt"})
    assert tally.value() == pytest.approx((2 / 3 + 0) / 2)
    assert tally.value("precision") == pytest.approx((1 / 2 + 0) / 2)


def test_the_mean_of_folds_is_not_the_f1_of_all():
    benchmark = all_benchmarks()["gad"]
    items = [
        ChoiceItem("1.1", "1.1", "", ("no", "yes"), 1, group="fold 1"),
        ChoiceItem("2.1", "2.1", "", ("no", "yes"), 1, group="fold 2"),
        ChoiceItem("2.2", "2.2", "", ("no", "yes"), 1, group="fold 2"),
    ]
    tally = benchmark.score(items, [1, 0, 1], {"folds": "10"})
    assert tally.value() == pytest.approx((1 + 2 / 3) / 2)
    with pytest.raises(UserError, match="is no choice"):
        benchmark.score(items, [1, 2, 1], {"folds": "10"})


def test_a_fold_without_pairs_is_left_out_of_the_mean():
    benchmark = all_benchmarks()["euadr"]
    items = [
        ChoiceItem(f"{fold}.1", f"{fold}.1", "", ("no", "yes"), 1, group=f"fold {fold}")
        for fold in range(1, 4)
    ]
    tally = benchmark.score(items, [1, 1, 0], {"folds": "10"})
    for name in ("f1", "precision", "recall"):
        score = tally.scores[name]
        assert score(tally.counts_dk.sum(0)) == pytest.approx(2 / 3)
        assert score(tally.counts_dk[:2].sum(0)) == 1.0, "of items of the first two folds"
        assert list(score(tally.counts_dk)) == [1.0, 1.0, 0.0], "of each item alone"
        assert score(0 * tally.counts_dk[0]) == 0.0
    unasked = ChoiceItem("4.1", "4.1", "", ("no", "yes"), 0, group="fold 4")
    more = benchmark.score([*items, unasked], [1, 1, 1, 0], {"folds": "10"})
    assert more.value() == 1.0, "nothing was sought in the fourth fold, and nothing told"
