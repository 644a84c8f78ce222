"""Intervals hold the truth as often as they say, and agree with scipy's; comparisons likewise."""

import numpy as np
import pytest
import scipy.stats

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.statistics import (
    bootstrap,
    bootstrap_mean,
    intervals,
    mcnemar,
    mcnemar_of,
    paired_bootstrap,
    spread,
)
from megatron_biollm.evaluation.tally import Tally


def accuracy(counts):
    return counts[..., 0] / np.maximum(counts[..., 1], 1)


def f1(counts):
    found, right, sought = (counts[..., column] for column in range(3))
    return 2 * right / np.maximum(found + sought, 1)


def answers(right) -> Tally:
    right = np.asarray(right, float)
    counts = np.stack([right, np.ones_like(right)], 1)
    names = tuple(f"q{n}" for n in range(len(right)))
    return Tally(names, counts, {"accuracy": accuracy}, len(right))


def mentions(generator, documents: int) -> Tally:
    """Documents of unlike length and difficulty: the mentions of one stand or fall together."""
    sought = generator.poisson(6, documents) + 1
    right = generator.binomial(sought, generator.beta(8, 3, documents))
    found = right + generator.poisson(1.5, documents)
    counts = np.stack([found, right, sought], 1).astype(float)
    return Tally(tuple(f"d{n}" for n in range(documents)), counts, {"f1": f1}, documents * 5)


def test_an_interval_of_f1_is_scipys():
    tally = mentions(np.random.default_rng(0), 120)
    for method, near in (("BCa", 0.004), ("percentile", 0.02)):
        theirs = scipy.stats.bootstrap(
            (np.arange(120),),
            lambda rows, axis=-1: f1(tally.counts_dk[rows].sum(-2)),
            n_resamples=9999,
            method=method,
            rng=np.random.default_rng(1),
        ).confidence_interval
        ours = bootstrap(tally, resamples=9999)
        assert ours.value == pytest.approx(tally.value())
        assert (ours.low, ours.high) == pytest.approx(theirs, abs=near)


@pytest.mark.parametrize(("n", "share"), [(1273, 0.84), (500, 0.396), (200, 0.27)])
def test_an_interval_of_accuracy_is_the_binomial_one(n, share):
    right = np.arange(n) < round(share * n)
    theirs = scipy.stats.binomtest(int(right.sum()), n).proportion_ci(0.95, "wilson")
    ours = bootstrap(answers(right), resamples=5000)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)


def coverage(make, truth: float, documents_are_units: bool = True) -> float:
    held = []
    for trial in range(300):
        tally = make(np.random.default_rng(trial))
        if not documents_are_units:
            counts = items_of(tally)
            tally = Tally(tuple(map(str, range(len(counts)))), counts, tally.scores, len(counts))
        one = bootstrap(tally, resamples=400)
        held.append(one.low <= truth <= one.high)
    return float(np.mean(held))


def items_of(tally: Tally) -> np.ndarray:
    """Each mention a unit of its own: what intervals must not resample."""
    found, right, sought = tally.counts_dk.sum(0).astype(int)
    rows = [[1, 1, 1]] * right + [[0, 0, 1]] * (sought - right) + [[1, 0, 0]] * (found - right)
    return np.array(rows, float)


def clustered(generator) -> Tally:
    """Thirty documents of ten mentions each, alike within a document."""
    right = generator.binomial(10, generator.beta(1.5, 0.8, 30)).astype(float)
    ten = np.full(30, 10.0)
    return Tally(tuple(map(str, range(30))), np.stack([ten, right, ten], 1), {"f1": f1}, 300)


def test_nineteen_of_twenty_intervals_hold_the_true_score():
    assert 0.91 <= coverage(lambda g: answers(g.random(80) < 0.7), 0.7) <= 0.98
    assert 0.90 <= coverage(clustered, 1.5 / 2.3) <= 0.98


def test_intervals_over_mentions_instead_of_documents_would_be_too_narrow():
    assert coverage(clustered, 1.5 / 2.3, documents_are_units=False) < 0.75


def test_ten_thousand_documents_take_little_memory():
    tally = mentions(np.random.default_rng(3), 10_000)
    counts = tally.counts_dk + np.random.default_rng(4).random(tally.counts_dk.shape)
    unlike = Tally(tally.documents, counts, tally.scores, tally.items)
    one = bootstrap(unlike, resamples=500)
    assert one.low < one.value < one.high < one.low + 0.02


def test_the_same_seed_gives_the_same_interval_and_another_one_hardly_differs():
    tally = mentions(np.random.default_rng(0), 100)
    assert bootstrap(tally) == bootstrap(tally)
    assert bootstrap(tally, seed=1) != bootstrap(tally)
    assert bootstrap(tally, seed=1).low == pytest.approx(bootstrap(tally).low, abs=0.005)


@pytest.mark.parametrize("value", [0, 1])
def test_no_error_in_twenty_questions_does_not_prove_that_there_is_none(value):
    one = bootstrap(answers([value] * 20))
    theirs = scipy.stats.binomtest(20 * value, 20).proportion_ci(0.95, "exact")
    assert (one.low, one.high) == pytest.approx((theirs.low, theirs.high))


def test_every_score_of_a_tally_has_its_interval():
    tally = answers(np.arange(50) < 20)
    both = Tally(
        tally.documents,
        tally.counts_dk,
        {"accuracy": accuracy, "error": lambda c: 1 - accuracy(c)},
        50,
    )
    made = intervals(both)
    assert list(made) == ["accuracy", "error"]
    assert made["error"].low == pytest.approx(1 - made["accuracy"].high, abs=0.021)


def test_one_document_has_an_interval_as_wide_as_its_ignorance():
    one = bootstrap(answers([1]))
    assert (one.low, one.high) == pytest.approx((0.025, 1.0))


def two_models(generator, ahead: float, n: int = 400):
    """Two models that find the same questions hard."""
    hard = generator.random(n)
    noise = 0.15 * generator.standard_normal((2, n))
    return answers(hard + noise[0] < 0.6), answers(hard + noise[1] < 0.6 + ahead)


def test_a_paired_difference_is_surer_than_two_intervals():
    first, second = two_models(np.random.default_rng(0), 0.07)
    difference = paired_bootstrap(first, second)
    assert difference.value == pytest.approx(second.value() - first.value())
    assert difference.p < 0.02 and difference.low > 0
    assert bootstrap(first).high > bootstrap(second).low
    other_way = paired_bootstrap(second, first)
    assert other_way.value == -difference.value
    assert other_way.p == pytest.approx(difference.p, abs=0.005)


def test_equal_models_differ_by_chance_as_often_as_the_p_value_says():
    p = [
        paired_bootstrap(*two_models(np.random.default_rng(trial), 0), resamples=200).p
        for trial in range(300)
    ]
    assert 0.02 <= np.mean(np.array(p) < 0.05) <= 0.09
    same = answers(np.arange(100) < 50)
    assert paired_bootstrap(same, same).p == 1.0


def test_only_documents_that_both_answered_are_compared():
    first, second = answers([1, 0, 1, 0]), answers([1, 1])
    assert paired_bootstrap(first, second).documents == 2
    assert paired_bootstrap(first, second).value == 0.5
    strangers = Tally(("a",), np.ones((1, 2)), {"accuracy": accuracy}, 1)
    with pytest.raises(UserError, match="none is the same"):
        paired_bootstrap(first, strangers)


@pytest.mark.parametrize(("b", "c"), [(0, 1), (3, 3), (1, 8), (40, 22), (700, 810)])
def test_mcnemars_p_is_the_binomial_tests(b, c):
    ours = mcnemar(b, c)
    law = scipy.stats.binom(b + c, 0.5)
    assert ours.exact == pytest.approx(scipy.stats.binomtest(b, b + c).pvalue)
    assert ours.mid == pytest.approx(2 * law.cdf(min(b, c)) - law.pmf(min(b, c)))
    assert ours.mid <= ours.exact
    assert mcnemar(0, 0).exact == mcnemar(0, 0).mid == 1.0


def test_mcnemar_counts_the_questions_that_one_model_alone_answers():
    made = mcnemar_of(answers([1, 1, 1, 0, 0]), answers([1, 0, 0, 1, 0]))
    assert (made.only_first, made.only_second) == (2, 1)


def test_mcnemar_does_not_apply_to_documents_of_several_items():
    tally = mentions(np.random.default_rng(0), 10)
    assert mcnemar_of(tally, tally) is None


def test_a_spread_tells_mean_and_deviation_over_seeds():
    made = spread({"1": 0.5, "2": 0.6, "3": 0.7})
    assert (made.mean, made.std) == pytest.approx((0.6, 0.1))
    assert (made.low, made.high) == (0.5, 0.7)
    assert spread({"1": 0.5}).std == 0
    with pytest.raises(UserError, match="at least one"):
        spread({})


def test_the_mean_over_seeds_is_as_sure_as_its_documents_not_as_its_runs():
    runs = [answers(np.arange(100) < 60)] * 3
    made, single = bootstrap_mean(runs), bootstrap(runs[0])
    assert made.value == pytest.approx(0.6)
    assert (made.low, made.high) == pytest.approx((single.low, single.high), abs=0.011)
    with pytest.raises(UserError, match="same documents"):
        bootstrap_mean([runs[0], answers([1, 0])])


def test_nothing_scored_has_no_interval():
    nothing = Tally((), np.empty((0, 2)), {"accuracy": accuracy}, 0)
    with pytest.raises(UserError, match="nothing was scored"):
        bootstrap(nothing)
    with pytest.raises(UserError, match=r"95.*share such as 0\.95"):
        bootstrap(answers([1]), level=95)
