import numpy as np
import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.items import NumberItem
from megatron_biollm.evaluation.numbers import concordance_index, score_numbers


def items(values, documents=None):
    documents = documents or [str(place) for place in range(len(values))]
    return [
        NumberItem(str(place), documents[place], "?", float(value))
        for place, value in enumerate(values)
    ]


def by_pairs(values, told):
    """The concordance index as its definition reads; None is behind everything."""
    right = pairs = 0
    for y, p in zip(values, told, strict=True):
        for z, q in zip(values, told, strict=True):
            if y > z:
                pairs += 1
                right += 0 if None in (p, q) else (p > q) + 0.5 * (p == q)
    return right / pairs if pairs else 0.0


def drawn(seed, count=60, missing=0.1):
    random = np.random.default_rng(seed)
    values = random.integers(0, 12, count) / 2
    told = [float(v) for v in np.round(values + random.normal(0, 2, count))]
    return values, [None if random.random() < missing else one for one in told]


@pytest.mark.parametrize("seed", range(8))
def test_the_concordance_index_is_that_of_all_pairs(seed):
    values, told = drawn(seed)
    as_array = np.array([np.nan if one is None else one for one in told])
    expected = by_pairs(values, told)
    assert concordance_index(values, as_array) == pytest.approx(expected, abs=1e-12)
    groups = [str(place % 7) for place in range(len(values))]
    tally = score_numbers(items(values, groups), told)
    assert tally.value() == pytest.approx(expected, abs=1e-12)
    assert (len(tally.documents), tally.unreadable) == (7, told.count(None))


@pytest.mark.parametrize("values", [[1, 2, 3], [3, 1, 2], [2, 2, 1]])
def test_the_right_order_is_1_the_reverse_0_and_no_order_a_half(values):
    told = np.array(values, float)
    assert concordance_index(told, told) == 1.0
    assert concordance_index(told, -told) == 0.0
    assert concordance_index(told, 0 * told) == 0.5


def test_equal_values_are_no_pairs():
    assert concordance_index(np.ones(4), np.arange(4.0)) == 0.0
    assert concordance_index(np.array([]), np.array([])) == 0.0


def test_a_sample_of_documents_has_the_concordance_index_of_its_items():
    values, told = drawn(3)
    groups = [place % 7 for place in range(len(values))]
    tally = score_numbers(items(values, [str(one) for one in groups]), told)
    drawn_documents = [0, 0, 3, 5, 5, 5, 6]
    weights = np.bincount(drawn_documents, minlength=7)
    again = [
        place for one in drawn_documents for place in range(len(values)) if groups[place] == one
    ]
    own_values, own_told = [values[place] for place in again], [told[place] for place in again]
    expected = score_numbers(items(own_values), own_told)
    for name in tally.scores:
        value = tally.scores[name](weights @ tally.counts_dk)
        assert value == pytest.approx(expected.value(name), abs=1e-9)
    assert expected.value() == pytest.approx(by_pairs(own_values, own_told))


def test_squared_errors_by_hand():
    tally = score_numbers(items([5, 7, 6]), [5.0, 6.0, None])
    assert tally.value("mse") == pytest.approx((0 + 1 + 36) / 3)


def test_r_m_squared_by_its_definition():
    random = np.random.default_rng(0)
    y = random.normal(6, 1, 50)
    p = y + random.normal(0, 0.7, 50)
    r2 = np.corrcoef(y, p)[0, 1] ** 2
    slope = (y @ p) / (p @ p)
    origin = 1 - ((y - slope * p) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    expected = r2 * (1 - np.sqrt(abs(r2**2 - origin**2)))
    assert score_numbers(items(y), [float(one) for one in p]).value("rm2") == pytest.approx(
        expected
    )


def test_what_says_nothing_scores_nothing():
    asked = items([5, 6, 7])
    nothing = score_numbers(asked, [None] * 3)
    assert (nothing.value(), nothing.value("rm2"), nothing.unreadable) == (0.0, 0.0, 3)
    same = score_numbers(asked, [5.4] * 3)
    assert (same.value(), same.value("rm2")) == (0.5, 0.0)
    gold = score_numbers(asked, [5.0, 6.0, 7.0])
    assert (gold.value(), gold.value("mse"), gold.value("rm2")) == (1.0, 0.0, 1.0)


def test_what_counts_mean_does_not_depend_on_the_items():
    values, told = drawn(1)
    tally = score_numbers(items(values), told)
    total = np.stack([tally.counts_dk.sum(0)] * 2)
    for name, score in score_numbers([], []).scores.items():
        assert score(total) == pytest.approx([tally.value(name)] * 2)
        assert score_numbers([], []).value(name) == 0.0


@pytest.mark.parametrize("wrong", ["5", float("nan"), float("inf"), (5,)])
def test_what_is_no_number_is_refused(wrong):
    with pytest.raises(UserError, match="prediction for 0 is .* must be a finite number"):
        score_numbers(items([5]), [wrong])
    with pytest.raises(UserError, match="0 predictions for 1 items"):
        score_numbers(items([5]), [])


def test_a_hundred_thousand_pairs_take_no_square():
    random = np.random.default_rng(0)
    values = random.normal(size=100_000)
    assert concordance_index(values, values) == 1.0
    assert concordance_index(values, random.normal(size=100_000)) == pytest.approx(0.5, abs=0.01)
