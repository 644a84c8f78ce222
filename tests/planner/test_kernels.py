"""Kernel times: rooflines and counts of bytes, checked by hand."""

from dataclasses import replace

import pytest

from megatron_biollm.model.config import ModelConfig
from megatron_biollm.model.flops import num_parameters
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.planner.calibration import load_calibration
from megatron_biollm.planner.candidate import Candidate, Work
from megatron_biollm.planner.hardware import load_gpu
from megatron_biollm.planner.kernels import Kernels
from megatron_biollm.planner.software import Software

PERFECT = replace(
    load_calibration(),
    matmul_bf16=1.0,
    matmul_fp8=1.0,
    attention=1.0,
    memory=1.0,
    power_exponent=0.5,
)
MODEL = ModelConfig(preset="70b")


def kernels(tp=1, gpu=None, precision="bf16", mbs=1, cp=1, software=None, sequence_parallel=None):
    wanted = tp > 1 if sequence_parallel is None else sequence_parallel
    parallel = ParallelConfig(
        tensor_model_parallel_size=tp, context_parallel_size=cp, sequence_parallel=wanted
    )
    work, candidate = Work(MODEL, 8, precision), Candidate(parallel, mbs, 1)
    return Kernels(work, candidate, gpu or load_gpu("h100"), PERFECT, software or Software())


def endless_memory(gpu):
    return replace(gpu, memory_bandwidth=1e9)


def test_products_take_their_flops_where_memory_costs_nothing():
    one = kernels(gpu=endless_memory(load_gpu("h100")))
    flops = 2 * 4096 * one.layer_parameters
    assert one.layer_forward().matmul == pytest.approx(flops / 794.5e12, rel=1e-3)
    assert one.layer_backward().matmul == pytest.approx(2 * flops / 794.5e12, rel=1e-3)


def test_layers_and_embeddings_are_all_parameters_but_the_norms():
    one = kernels()
    counted = 80 * one.layer_parameters + 2 * one.output_parameters
    assert counted == pytest.approx(num_parameters(MODEL) - 161 * 8192)


def test_flash_attention_takes_the_causal_half_of_the_scores():
    flops = 4 * 4096 * 4096 * 8192 / 2
    assert kernels().layer_forward().attention == pytest.approx(flops / 794.5e12)
    assert kernels().layer_backward().attention == pytest.approx(2.5 * flops / 794.5e12)


def test_flash_attention_made_for_the_a100_is_slower_on_later_gpus():
    old, new = Software(attention="flash2"), Software(attention="flash3")
    for name, slower in (("a100", False), ("h100", True)):
        seconds = [
            kernels(gpu=load_gpu(name), software=one).layer_forward().attention
            for one in (old, new)
        ]
        assert (seconds[0] > seconds[1]) == slower


def test_tensor_parallelism_shares_out_products_but_not_all_bytes():
    whole, part = kernels().layer_forward(), kernels(tp=8).layer_forward()
    assert part.attention == pytest.approx(whole.attention / 8)
    assert part.matmul > whole.matmul / 8


def test_sequence_parallelism_shares_out_norms_and_residuals():
    shared, repeated = kernels(tp=8), kernels(tp=8, sequence_parallel=False)
    assert repeated.layer_forward().memory > 1.5 * shared.layer_forward().memory


def test_context_parallelism_shares_out_tokens():
    assert kernels(cp=2).tokens == 2048
    assert kernels(mbs=2).tokens == 8192


def test_unfused_kernels_move_more_bytes():
    fused, eager = (
        kernels().layer_forward(),
        kernels(software=Software(fused=False)).layer_forward(),
    )
    assert eager.memory == pytest.approx(PERFECT.elementwise_eager * fused.memory)


def test_fp8_speeds_up_products_and_costs_casts_but_leaves_the_output_layer():
    plain, fp8 = kernels(), kernels(precision="fp8")
    assert fp8.layer_forward().matmul < plain.layer_forward().matmul
    assert fp8.layer_forward().memory > plain.layer_forward().memory
    assert fp8.output_forward() == plain.output_forward()


def test_a_deferred_gradient_of_the_output_layer_costs_nothing_in_the_stage():
    whole, deferred = kernels().output_backward(), kernels().output_backward(deferred=True)
    assert deferred.matmul == pytest.approx(whole.matmul / 2, rel=0.1)


def test_adam_moves_34_bytes_per_parameter():
    assert kernels().optimizer(3350e9 / 34) == pytest.approx(1.0)


def test_a_lower_power_limit_lowers_the_sustained_rates():
    limited = load_gpu("h100-96gb-500w")
    assert kernels(gpu=limited).power_share() == pytest.approx((500 / 700) ** 0.5)
    assert kernels().power_share() == 1.0
