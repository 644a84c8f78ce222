from dataclasses import replace
from datetime import datetime

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.planner.search import Layout, Refused
from megatron_biollm.recipes.plan import PlanOptions, explained, make_plan, place
from megatron_biollm.recipes.plan_report import headline, short, table
from megatron_biollm.recipes.run_config import load_run_config

SMALL = ["model.preset=1b", "training.global_batch_size=64", "training.bf16=true"]
FP8 = ["training.fp8=hybrid"]
EIGHT = PlanOptions("h100-80gb", gpus=8, start=datetime(2027, 1, 1))


@pytest.mark.parametrize(
    ("given", "gpus", "per_node"),
    [
        ({"gpus": 256}, 256, 8),
        ({"nodes": 32}, 256, 8),
        ({"nodes": 32, "gpus_per_node": 4}, 128, 4),
        ({"gpus": 64, "nodes": 16}, 64, 4),
        ({"gpus": 6, "gpus_per_node": 2}, 6, 2),
    ],
)
def test_gpus_follow_from_any_two_of_the_numbers(given, gpus, per_node):
    gpu, world_size = place(PlanOptions("h100", **given))
    assert (world_size, gpu.gpus_per_node) == (gpus, per_node)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "how many GPUs"),
        ({"gpus": 0}, "gpus=0 must be at least 1"),
        ({"gpus": 64, "nodes": 8, "gpus_per_node": 4}, "64 GPUs are not 8 nodes of 4"),
    ],
)
def test_numbers_of_gpus_that_contradict_each_other_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        place(PlanOptions("h100", **given))


def test_the_runs_own_rules_decide():
    packed = ["data.reset_position_ids=true", "data.reset_attention_mask=true"]
    plan = make_plan(load_run_config(None, [*SMALL, *packed]), EIGHT)
    degrees = {x.candidate.parallel.context_parallel_size for x in plan.found.fitting}
    assert degrees == {1}
    assert "data.reset_attention_mask=true does not go with" in explained(plan, "cp=2").reason


def test_a_run_in_fp8_is_planned_as_one():
    bf16, fp8 = (make_plan(load_run_config(None, [*SMALL, *more]), EIGHT) for more in ([], FP8))
    assert (bf16.question.work.precision, fp8.question.work.precision) == ("bf16", "fp8")
    assert fp8.best.step.tokens_per_second_per_gpu > bf16.best.step.tokens_per_second_per_gpu
    # FP8 copies of the layers' matrices lie beside the weights.
    assert fp8.own.peak.weights > bf16.own.peak.weights
    with pytest.raises(UserError, match="precision=fp8, but .* has no FP8 tensor cores"):
        make_plan(load_run_config(None, [*SMALL, *FP8]), PlanOptions("a100-80gb", gpus=8))


def test_a_ramp_of_the_batch_must_divide_too():
    ramp = ["training.rampup_batch_size=[4,4,1000]"]
    plan = make_plan(load_run_config(None, [*SMALL, *ramp]), EIGHT)
    assert isinstance(plan.own, Refused)
    assert "rampup_batch_size start=4 is not divisible" in plan.own.reason
    replicas = {x.candidate.data_parallel_size for x in plan.found.fitting}
    assert max(replicas) == 4
    assert "note: planned at the full global batch" in headline(plan)


def test_the_configurations_own_layout_is_marked_where_it_stands():
    plan = make_plan(load_run_config(None, SMALL), EIGHT)
    best = plan.best.candidate
    own = replace(load_run_config(None, SMALL), parallel=best.parallel)
    own = replace(own, training=replace(own.training, micro_batch_size=best.micro_batch_size))
    marked = make_plan(own, EIGHT)
    assert isinstance(marked.own, Layout)
    lines = [line for line in table(marked, 3).splitlines() if line.strip().startswith("1*")]
    assert len(lines) == 1
    assert "as fast as any" in table(marked, 3)


def test_tokens_default_to_the_configurations_steps():
    plan = make_plan(load_run_config(None, [*SMALL, "training.train_iters=10"]), EIGHT)
    assert plan.tokens == 10 * 64 * 4096
    asked = make_plan(load_run_config(None, SMALL), replace(EIGHT, tokens=1e12))
    assert asked.tokens == 1e12
    rate = asked.best.step.tokens_per_second_per_gpu * 8
    assert asked.cost(asked.best).days == pytest.approx(1e12 / rate / 86_400)
    assert asked.cost(asked.best, slower=0.1).days == pytest.approx(1.1e12 / rate / 86_400)


def test_too_few_gpus_are_said_to_be():
    plan = make_plan(load_run_config(None, ["model.preset=70b"]), PlanOptions("h100", gpus=4))
    assert plan.best is None
    assert "on 4 h100-80gb (1 x 4): no layout fits" in headline(plan)


def test_numbers_are_short():
    assert [short(n) for n in (4e12, 68.98e9, 1.3e6, 12)] == ["4T", "69B", "1.3M", "12"]
