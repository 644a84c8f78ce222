"""Facts that any time model must show, whatever its constants."""

from dataclasses import replace

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.model.flops import token_flops
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.planner.calibration import load_calibration
from megatron_biollm.planner.candidate import Candidate, Work
from megatron_biollm.planner.hardware import load_gpu
from megatron_biollm.planner.software import Software
from megatron_biollm.planner.stage import layers_of_ranks
from megatron_biollm.planner.timing import CONVENTIONS, predict_step

H100 = load_gpu("h100")
WORK = Work(ModelConfig(preset="70b"), 512)
# Without output layer worth mentioning, all pipeline ranks are alike.
EVEN = Work(ModelConfig(preset="70b", vocab_size=8, make_vocab_size_divisible_by=8), 512)
PARTS = [
    "compute",
    "recompute",
    "tp_exposed",
    "cp_exposed",
    "pp_exposed",
    "host",
    "bubble",
    "dp_exposed",
    "optimizer",
]


def layout(tp=8, pp=8, dp=4, mbs=1, cp=1, vpp=None, sharding="optimizer", **fields):
    parallel = ParallelConfig(
        tensor_model_parallel_size=tp,
        pipeline_model_parallel_size=pp,
        virtual_pipeline_model_parallel_size=vpp,
        context_parallel_size=cp,
        **{"sequence_parallel": tp > 1} | fields,
    )
    return Candidate(parallel, mbs, dp, sharding)


def step(work=WORK, gpu=H100, software=None, **fields):
    return predict_step(work, layout(**fields), gpu, software=software or Software())


def test_the_parts_add_up_to_the_step():
    one = step()
    assert sum(getattr(one, part) for part in PARTS) == pytest.approx(one.total)
    assert one.tokens_per_second_per_gpu == pytest.approx(512 * 4096 / one.total / 256)


@pytest.mark.parametrize("vpp", [None, 2, 5])
def test_the_bubble_is_ranks_minus_one_over_chunks_and_micro_batches(vpp):
    one = step(EVEN, vpp=vpp)
    running = one.total - one.bubble - one.dp_exposed - one.optimizer
    assert one.bubble / running == pytest.approx(7 / ((vpp or 1) * 128), rel=0.01)


def test_the_output_layer_makes_the_last_rank_the_slowest():
    one = step()
    assert max(one.stage_forward) == one.stage_forward[-1]
    assert one.imbalance > 0
    assert step(EVEN).imbalance == pytest.approx(0, abs=0.01)


def test_full_recomputation_costs_a_forward_pass():
    plain, full = step(), step(recompute_granularity="full")
    assert full.recompute == pytest.approx(plain.compute / 3, rel=0.15)
    assert full.recompute / full.total > 0.15


def test_recomputation_of_a_few_layers_costs_their_share():
    full = step(recompute_granularity="full")
    some = step(recompute_granularity="full", recompute_method="block", recompute_num_layers=5)
    assert some.recompute == pytest.approx(full.recompute / 2)


def test_selective_recomputation_costs_little():
    selective = step(recompute_granularity="selective")
    assert 0 < selective.recompute < 0.05 * selective.total
    more = step(recompute_granularity="selective", recompute_modules=["core_attn", "mlp"])
    assert more.recompute > selective.recompute


def test_tensor_parallelism_across_nodes_is_slower():
    inside, across = step(tp=8, pp=2, dp=16), step(tp=16, pp=1, dp=16)
    assert across.tp_exposed > 1.5 * inside.tp_exposed
    assert across.total > inside.total
    slow = step(tp=16, pp=1, dp=16, gpu=replace(H100, network_bandwidth=100))
    assert slow.tp_exposed > 2 * across.tp_exposed


def test_programs_that_overlap_tensor_parallelism_wait_less():
    waits = [
        step(software=Software(tp_overlap=how)).tp_exposed for how in ("none", "backward", "full")
    ]
    assert waits == sorted(waits, reverse=True)


def test_more_replicas_with_the_same_batch_expose_more_of_their_exchange():
    shares = [
        (one := step(tp=8, pp=4, dp=dp, overlap_grad_reduce=True)).dp_exposed / one.total
        for dp in (2, 8, 32)
    ]
    assert shares == sorted(shares)


def test_overlap_hides_the_exchange_between_replicas():
    plain = step()
    reduced = step(overlap_grad_reduce=True)
    both = step(overlap_grad_reduce=True, overlap_param_gather=True)
    assert plain.dp_exposed > reduced.dp_exposed > both.dp_exposed
    assert plain.dp_hidden == 0 < both.dp_hidden


def test_one_replica_exchanges_nothing():
    assert step(tp=8, pp=8, dp=1).dp_exposed == 0


def test_sharding_the_optimizer_shortens_its_step():
    assert step().optimizer == pytest.approx(step(sharding="none").optimizer / 4)


def test_sharding_everything_gathers_parameters_for_each_micro_batch():
    few, many = (step(tp=1, pp=1, dp=64, mbs=mbs, sharding="full") for mbs in (8, 1))
    assert many.dp_exposed > 2 * few.dp_exposed


def test_pipeline_sends_hide_when_they_overlap():
    plain, hidden = step(vpp=5), step(vpp=5, overlap_p2p_comm=True)
    assert hidden.pp_exposed < plain.pp_exposed
    assert hidden.pp_hidden > 0


def test_context_parallelism_exchanges_keys_and_values():
    one = step(tp=4, pp=8, cp=2)
    assert one.cp_exposed > 0
    assert step(tp=4, pp=8, dp=8).cp_exposed == 0


def test_small_micro_batches_leave_the_gpu_waiting_for_launches():
    tiny = Work(ModelConfig(preset="1b", seq_length=512), 64)
    small, large = (step(tiny, tp=1, pp=1, dp=1, mbs=mbs) for mbs in (1, 16))
    assert small.host / small.total > 0.5 > large.host / large.total


def test_small_matrices_run_slower_than_large_ones():
    narrow, wide = step(tp=8, pp=8, dp=4), step(tp=1, pp=8, dp=32)
    # Kernel time per token on one GPU, so eight times the work.
    assert 8 * narrow.compute / narrow.tokens * 4 > wide.compute / wide.tokens * 32


def test_fp8_is_faster_but_not_twice():
    plain, fp8 = step(), step(replace(WORK, precision="fp8"))
    assert 1.2 < plain.total / fp8.total < 2
    with pytest.raises(UserError, match="has no FP8 tensor cores"):
        step(replace(WORK, precision="fp8"), gpu=load_gpu("a100"))


def test_faster_gpus_are_faster():
    names = ["a800", "a100", "h100-96gb-500w", "h100", "h200", "b200"]
    seconds = [step(gpu=load_gpu(name)).total for name in names]
    assert seconds == sorted(seconds, reverse=True)


def test_flash_attention_computes_half_of_the_scores():
    long = replace(WORK, model=ModelConfig(preset="70b", seq_length=16384))
    flash, scores = (step(long, software=Software(attention=how)) for how in ("flash3", "scores"))
    assert scores.compute > 1.3 * flash.compute


def test_utilisation_names_its_convention():
    one = step()
    assert one.mfu("6n") < one.mfu("causal") < one.mfu("full")
    assert set(one.as_dict()["mfu"]) == set(CONVENTIONS)
    by_hand = one.tokens_per_second_per_gpu * token_flops(WORK.model).forward_backward / 989e12
    assert one.mfu("causal") == pytest.approx(by_hand)


def test_every_prediction_carries_the_error_measured_on_rows_held_out():
    assert (step().expected_error, step().likely_error) == load_calibration().errors["bf16"]


@pytest.mark.parametrize(
    ("arguments", "layers"),
    [((80, 8, 1), [10] * 8), ((126, 8, 1), [15, 16, 16, 16, 16, 16, 16, 15]), ((80, 32, 1), None)],
)
def test_a_remainder_of_layers_goes_to_the_stages_after_the_first(arguments, layers):
    found = layers_of_ranks(*arguments)
    assert sum(found) == arguments[0]
    assert max(found) - min(found) <= 1
    assert layers is None or found == layers


def test_layers_without_transformer_engine_are_slower():
    local = replace(WORK, model=ModelConfig(preset="70b", transformer_impl="local"))
    alone = predict_step(local, layout(), H100)
    assert alone.compute > 1.05 * predict_step(WORK, layout(), H100).compute
