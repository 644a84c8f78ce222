import csv
from pathlib import Path

import numpy as np
import pytest

from megatron_biollm.feedback import agreement
from megatron_biollm.feedback.agreement import Estimate, alpha, kappa, kappas, share

KQA = Path(__file__).parents[3] / "shared/data/benchmarks/align_kqa/NLI_medical_annotator.csv"


@pytest.fixture
def three_physicians():
    if not KQA.is_file():
        pytest.skip(f"{KQA.name} of K-QA (github.com/Itaymanes/K-QA) is not beside the repository")
    with KQA.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [[row[f"label_{rater}"] for row in rows] for rater in range(3)]


def test_the_three_annotators_of_k_qa_agree_as_is_known(three_physicians):
    found = alpha(three_physicians)
    assert found.n == 399 and found.value == pytest.approx(0.7191, abs=5e-5)
    assert found.low < 0.7191 < found.high
    values = {pair: round(k.value, 4) for pair, k in kappas(three_physicians).items()}
    assert values == {(0, 1): 0.6696, (0, 2): 0.7612, (1, 2): 0.7317}


def test_alpha_of_krippendorffs_own_example():
    # Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C: 0.743.
    rows = ["1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3",
            ". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 ."]  # fmt: skip
    ratings = [[None if v == "." else v for v in row.split()] for row in rows]
    assert round(alpha(ratings).value, 3) == 0.743


def test_the_bootstraps_alpha_and_kappa_are_those_of_the_estimates():
    drawn = np.random.default_rng(3).integers(0, 3, (2, 40)).astype(str).tolist()
    counts = agreement._counts(drawn)
    assert agreement._alphas(counts, np.ones((1, 40)))[0] == pytest.approx(alpha(drawn).value)
    assert -1 <= kappa(*drawn).low < kappa(*drawn).value < kappa(*drawn).high <= 1


def test_the_interval_is_that_of_drawing_units():
    random = np.random.default_rng(5)
    ratings = random.integers(0, 2, (2, 60))
    ratings[1, :40] = ratings[0, :40]
    drawn = [random.integers(0, 60, 60) for _ in range(600)]
    by_units = [kappa(*ratings[:, units].astype(str).tolist()).value for units in drawn]
    found = kappa(*ratings.astype(str).tolist())
    low, high = np.percentile(by_units, [2.5, 97.5])
    assert found.low == pytest.approx(low, abs=0.06) and found.high == pytest.approx(high, abs=0.06)


def test_kappa_by_hand():
    # Cohen: observed 0.7; expected 0.5 * 0.6 + 0.5 * 0.4.
    first = ["y"] * 25 + ["n"] * 25
    second = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert kappa(first, second).value == pytest.approx((0.7 - 0.5) / 0.5)


@pytest.mark.parametrize(
    ("ratings", "units"),
    [([["a", "a"], ["a", "a"]], 2), ([["a", None], [None, "b"]], 0), ([[], []], 0), ([], 0)],
)
def test_what_is_not_defined_is_none_and_no_error(ratings, units):
    assert alpha(ratings) == Estimate(None, None, None, units)
    if ratings:
        assert kappa(*ratings).value is None


def test_wilsons_interval():
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263.
    found = share(81, 263)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    assert share(0, 0).value is None
