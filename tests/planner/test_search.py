import itertools
from dataclasses import dataclass, replace

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.planner.candidate import Candidate, Work
from megatron_biollm.planner.hardware import load_gpu
from megatron_biollm.planner.memory import predict_memory
from megatron_biollm.planner.search import (
    RECOMPUTATIONS,
    Question,
    assess,
    peak_stage,
    search,
)
from megatron_biollm.recipes.run_config import load_run_config

GPU = load_gpu("h100-80gb")


@dataclass(frozen=True)
class Step:
    tokens_per_second_per_gpu: float


def question(overrides, world_size, gpu=GPU, speed=lambda candidate: 1.0, **fields):
    config = load_run_config(None, overrides)

    def check(parallel, micro_batch_size):
        training = replace(config.training, micro_batch_size=micro_batch_size)
        replace(config, parallel=parallel, training=training).check_world(world_size)

    work = Work(config.model, config.training.global_batch_size)
    predict = lambda candidate: Step(speed(candidate))  # noqa: E731
    return Question(work, world_size, gpu, check, predict, **fields)


TINY = ["model.preset=tiny", "model.vocab_size=1000", "training.global_batch_size=24"]
BIG = ["model.preset=70b", "training.global_batch_size=512"]


def key(candidate):
    parallel = candidate.parallel
    return (
        parallel.tensor_model_parallel_size,
        parallel.context_parallel_size,
        parallel.pipeline_model_parallel_size,
        parallel.virtual_pipeline_model_parallel_size or 1,
        candidate.micro_batch_size,
        candidate.sharding,
        parallel.recompute_granularity,
        tuple(parallel.recompute_modules),
    )


def brute_force(overrides, world_size, micro_batch_sizes):
    """Every combination of small numbers that a run's own configuration accepts."""
    config, numbers = load_run_config(None, overrides), range(1, world_size + 1)
    for tp, cp, pp, vpp, mbs in itertools.product(
        numbers, numbers, numbers, (1, 2, 4), micro_batch_sizes
    ):
        try:
            parallel = ParallelConfig(
                tensor_model_parallel_size=tp,
                context_parallel_size=cp,
                pipeline_model_parallel_size=pp,
                virtual_pipeline_model_parallel_size=vpp,
                sequence_parallel=tp > 1,
            )
            training = replace(config.training, micro_batch_size=mbs)
            replace(config, parallel=parallel, training=training).check_world(world_size)
        except UserError:
            continue
        alone = tp * pp == world_size
        for sharding in ["optimizer"] if alone else ["optimizer", "none"]:
            for fields in RECOMPUTATIONS.values():
                chosen = ParallelConfig(**fields)
                yield (tp, cp, pp, vpp, mbs, sharding, chosen.recompute_granularity,
                       tuple(chosen.recompute_modules))  # fmt: skip


@pytest.mark.parametrize("world_size", [1, 4, 6])
def test_every_layout_that_a_run_accepts_is_found_once(world_size):
    sizes = (1, 2, 3)
    found = search(question(TINY, world_size, micro_batch_sizes=sizes))
    keys = [key(layout.candidate) for layout in found.fitting + found.too_large]
    assert sorted(keys, key=str) == sorted(brute_force(TINY, world_size, sizes), key=str)
    assert all(layout.candidate.world_size == world_size for layout in found.fitting)


def test_what_breaks_a_rule_says_which():
    found = search(question(TINY, 6))
    reasons = " ".join(refused.reason for refused in found.refused)
    assert "model.num_attention_heads=8 is not divisible by parallel.tensor_model" in reasons
    assert "model.num_layers=4 is not divisible by the 3 pipeline stages" in reasons
    assert "training.global_batch_size=24 is not divisible by training.micro_batch_size=16" in (
        reasons
    )
    assert "the interleaved schedule needs micro-batches per step" in reasons


def test_the_fastest_comes_first_and_equals_stay_in_order():
    ask = question(TINY, 4, speed=lambda candidate: candidate.parallel.pipeline_model_parallel_size)
    layouts = search(ask).fitting
    speeds = [layout.step.tokens_per_second_per_gpu for layout in layouts]
    assert speeds == sorted(speeds, reverse=True)
    assert layouts == search(ask).fitting
    equal = [key(layout.candidate) for layout in layouts if layout.step == layouts[-1].step]
    every = [key(layout.candidate) for layout in search(question(TINY, 4)).fitting]
    assert equal == [one for one in every if one in set(equal)]


def test_memory_refusals_name_rank_part_and_remedy():
    ask = question(BIG, 32)
    parallel = ParallelConfig(
        tensor_model_parallel_size=8, pipeline_model_parallel_size=2, sequence_parallel=True
    )
    optimizer = assess(ask, Candidate(parallel, 1, 2, "none")).refusal
    assert optimizer.startswith("pipeline rank 0 needs 8")
    assert "GiB of h100-80gb (5% is kept free), most of it for optimizer (48.2 GiB)" in optimizer
    assert "parallel.use_distributed_optimizer=true" in optimizer
    activations = assess(ask, Candidate(parallel, 8, 2)).refusal
    assert "most of it for activations" in activations
    assert activations.endswith("take a smaller micro-batch")


def test_a_larger_margin_refuses_more():
    fits = [
        len(search(question(BIG, 32, memory_margin=m, micro_batch_sizes=(1,))).fitting)
        for m in (0.0, 0.1, 0.4)
    ]
    assert fits == sorted(fits, reverse=True)
    assert fits[0] > fits[2]


@pytest.mark.parametrize("vpp", [None, 5])
@pytest.mark.parametrize("mbs", [1, 4])
@pytest.mark.parametrize("recomputation", RECOMPUTATIONS)
def test_no_rank_between_the_first_and_the_last_is_the_fullest(vpp, mbs, recomputation):
    work = Work(load_run_config(None, BIG).model, 64)
    parallel = ParallelConfig(
        pipeline_model_parallel_size=4,
        virtual_pipeline_model_parallel_size=vpp,
        **RECOMPUTATIONS[recomputation],
    )
    candidate = Candidate(parallel, mbs, 1)
    stages = [stage.total for stage in predict_memory(work, candidate)]
    rank, peak = peak_stage(work, candidate)
    assert peak.total == stages[rank] == max(stages)
