"""Ranks are compared with those that have the same work, and named from a share of a step on."""

from megatron_biollm.training.stragglers import RankTimes, find_stragglers


def times(rank, data=0.01, compute=0.5, probe=0.001, stage=0):
    wait = None if compute is None else 1.0 - data - compute
    return RankTimes(rank, f"node-{rank}", stage, 1.0, data, compute, probe, wait)


def found(ranks):
    return [(s.rank, s.part) for s in find_stragglers(ranks, threshold=0.1)]


def test_equal_ranks_are_not_named():
    assert found([times(rank) for rank in range(4)]) == []
    assert found([times(0, compute=0.5), times(1, compute=0.58), times(2)]) == []


def test_the_slowest_is_named_with_its_host_and_part():
    ranks = [times(0), times(1, compute=0.7), times(2), times(3, data=0.3)]
    assert found(ranks) == [(3, "data"), (1, "compute")]
    [data, compute] = find_stragglers(ranks, 0.1)
    assert str(compute) == (
        "rank 1 on node-1 is slow in compute: 0.7 s against 0.5 s at the median (20% of a step)"
    )
    assert data.share > 0.28


def test_a_stage_with_more_work_is_no_straggler():
    ranks = [times(rank, compute=0.4 if rank < 4 else 0.9, stage=rank // 4) for rank in range(8)]
    assert found(ranks) == []
    assert found([*ranks[:7], times(7, compute=1.2, stage=1)]) == [(7, "compute")]


def test_of_two_ranks_the_slower_is_compared_with_the_faster():
    assert found([times(0), times(1, compute=0.9)]) == [(1, "compute")]


def test_a_device_that_is_slow_is_named_where_the_host_cannot_tell():
    ranks = [times(rank, compute=None, probe=0.002 if rank == 2 else 0.001) for rank in range(4)]
    assert found(ranks) == [(2, "probe")]
    assert "(100% of a probe)" in str(find_stragglers(ranks, 0.1)[0])
