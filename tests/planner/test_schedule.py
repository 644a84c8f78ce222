from collections import Counter
from types import SimpleNamespace

import pytest
from megatron.core.pipeline_parallel.schedules import (
    get_pp_rank_microbatches,
    get_schedule_table,
)

from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.planner.schedule import (
    BACKWARD,
    FORWARD,
    chunks_in_flight,
    order,
    timeline,
    warmup_passes,
)

CASES = [(1, None, 3), (2, None, 2), (4, None, 2), (4, None, 9), (2, 2, 4), (4, 3, 8), (8, 5, 8)]


def layout(pp, vpp=None):
    return ParallelConfig(pipeline_model_parallel_size=pp, virtual_pipeline_model_parallel_size=vpp)


@pytest.mark.parametrize(("pp", "vpp", "microbatches"), CASES)
def test_warmup_is_as_long_as_cores(pp, vpp, microbatches):
    for rank in range(pp):
        group = SimpleNamespace(size=lambda: pp, rank=lambda rank=rank: rank)
        pipeline = SimpleNamespace(pp_group=group, virtual_pipeline_model_parallel_size=vpp)
        core = get_pp_rank_microbatches(microbatches, vpp or 1, pp, p2p_communicator=pipeline)
        assert warmup_passes(layout(pp, vpp), rank, microbatches) == core[2]


@pytest.mark.parametrize(("pp", "vpp", "microbatches"), [c for c in CASES if c[1]])
def test_interleaved_passes_are_in_cores_order(pp, vpp, microbatches):
    core = get_schedule_table(microbatches, vpp, pp)
    passes = order(layout(pp, vpp), 0, microbatches)
    forward = [(p.microbatch, p.chunk) for p in passes if p.kind == FORWARD]
    backward = [(p.microbatch, vpp - 1 - p.chunk) for p in passes if p.kind == BACKWARD]
    assert forward == core == backward


@pytest.mark.parametrize(("pp", "vpp", "microbatches"), CASES)
def test_every_pass_runs_once_and_the_most_in_flight_is_as_predicted(pp, vpp, microbatches):
    for rank in range(pp):
        passes = order(layout(pp, vpp), rank, microbatches)
        assert set(Counter(passes).values()) == {1}
        assert len(passes) == 2 * microbatches * (vpp or 1)
        waiting = most = 0
        for one in passes:
            waiting += 1 if one.kind == FORWARD else -1
            most = max(most, waiting)
        assert waiting == 0
        assert most == chunks_in_flight(layout(pp, vpp), rank, microbatches)


def test_in_flight_of_the_70b_by_hand():
    # 1F1B holds PP - rank; interleaved 2 (PP - rank - 1) + (VPP - 1) PP + 1 chunks.
    assert [chunks_in_flight(layout(8), rank, 64) for rank in (0, 3, 7)] == [8, 5, 1]
    assert [chunks_in_flight(layout(8, 5), rank, 128) for rank in (0, 7)] == [47, 33]


@pytest.mark.parametrize(
    ("pp", "vpp", "microbatches", "bubble"),
    [(1, None, 3, 0), (4, None, 8, 3 / 8), (4, 2, 8, 3 / 16), (8, 5, 16, 7 / 80)],
)
def test_the_bubble_is_that_of_the_published_formula(pp, vpp, microbatches, bubble):
    chunks = vpp or 1
    spans = timeline(layout(pp, vpp), microbatches, [1 / chunks] * pp, [2 / chunks] * pp)
    length = max(rank[-1].end for rank in spans)
    assert length / (3 * microbatches) - 1 == pytest.approx(bubble)


def test_a_pass_starts_only_when_its_input_has_arrived():
    spans = timeline(layout(2), 2, [1.0, 1.0], [2.0, 2.0], transfer=0.5)
    first = {(s.what.kind, s.what.microbatch): s for s in spans[0]}
    second = {(s.what.kind, s.what.microbatch): s for s in spans[1]}
    assert second[FORWARD, 0].start == first[FORWARD, 0].end + 0.5
    assert second[BACKWARD, 0].start == second[FORWARD, 0].end
    assert first[BACKWARD, 0].start == second[BACKWARD, 0].end + 0.5
