"""The plan of a soak follows from its seed alone."""

import itertools
from collections import Counter

import pytest

from tests.soak.plan import RANKS, SPACING, TITLES, WITHOUT_NODES, make_plan

KINDS = tuple(TITLES)


def test_the_same_seed_gives_the_same_faults_and_another_one_others():
    assert make_plan(1, 30, 5, KINDS) == make_plan(1, 30, 5, KINDS)
    assert make_plan(1, 30, 5, KINDS) != make_plan(2, 30, 5, KINDS)


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_comes_up_equally_often_and_a_run_has_one_nan_at_most(seed):
    plans = make_plan(seed, 30, 5, KINDS)
    counts = Counter(fault.kind for plan in plans for fault in plan.faults)
    assert counts == dict.fromkeys(KINDS, 3)
    assert all([f.kind for f in plan.faults].count("nan") <= 1 for plan in plans)


def test_faults_lie_apart_and_before_the_end():
    for plan in make_plan(3, 30, 5, KINDS):
        steps = [fault.step for fault in plan.faults]
        assert steps == sorted(steps) and steps[-1] < plan.train_iters - 4
        assert all(b - a > SPACING // 3 for a, b in itertools.pairwise(steps))
        assert all(0 <= fault.rank < RANKS and 0 <= fault.draw < 1 for fault in plan.faults)


def test_numbers_count_through_and_a_last_run_may_be_shorter():
    plans = make_plan(1, 12, 5, WITHOUT_NODES)
    assert [len(plan.faults) for plan in plans] == [5, 5, 2]
    assert [f.number for plan in plans for f in plan.faults] == list(range(1, 13))


def test_a_nan_is_skipped_in_one_run_and_gone_back_over_in_the_next():
    plans = [plan for plan in make_plan(1, 30, 5, KINDS) if plan.poison]
    assert [plan.on_non_finite for plan in plans] == ["skip", "rewind", "skip"]
