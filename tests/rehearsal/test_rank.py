"""A rehearsed rank does what arithmetic and a real run say it does."""

import pytest
import torch

from megatron_biollm.device.runtime import select_device
from megatron_biollm.model.flops import num_parameters, token_flops
from megatron_biollm.parallel.process_groups import create_process_groups
from megatron_biollm.rehearsal.rank import _Line, build, micro_batch, rehearse_rank
from tests.rehearsal.runs import SIZES, small_run

TOKENS = 8 * SIZES["seq_length"]


def test_the_flops_of_a_step_are_those_of_the_formula():
    run = small_run()
    per_token = token_flops(run.model, causal=False)
    products = per_token.projections + per_token.feed_forward + per_token.output
    # Flash attention computes the scores again in its backward pass: five products after two.
    expected = TOKENS * (3 * products + 3.5 * per_token.attention)
    assert rehearse_rank(run, 0).flops == expected


def test_selective_recomputation_adds_one_forward_pass_of_attention():
    run = small_run(recompute_granularity="selective")
    extra = TOKENS * token_flops(run.model, causal=False).attention
    assert rehearse_rank(run, 0).flops == rehearse_rank(small_run(), 0).flops + extra


@pytest.mark.parametrize(
    "layout", [{"pp": 2}, {"pp": 2, "vpp": 2, "overlap_p2p_comm": True}, {"pp": 4}]
)
def test_a_few_micro_batches_tell_what_the_whole_step_does(layout):
    run = small_run(world_size=layout["pp"], batch=24, **layout)
    for rank in (0, layout["pp"] - 1):
        few, all_of_them = rehearse_rank(run, rank), rehearse_rank(run, rank, whole=True)
        assert few.microbatches[0] < all_of_them.microbatches[0] == 24
        assert few.steady
        assert few.flops == all_of_them.flops
        assert few.totals == all_of_them.totals
        assert few.peak.total == pytest.approx(all_of_them.peak.total, rel=1e-3)


def test_weights_gradients_and_optimizer_state_have_the_sizes_of_their_types():
    run = small_run(world_size=2)
    report = rehearse_rank(run, 0)
    parameters = num_parameters(run.model)
    assert report.parameters == parameters
    # Buffers are padded to a multiple of the data-parallel size and of 64 per parameter.
    assert report.peak.weights == pytest.approx(2 * parameters, rel=0.01)
    assert report.peak.gradients == pytest.approx(4 * parameters, rel=0.01)
    assert report.peak.optimizer == pytest.approx(12 * parameters / 2, rel=0.01)


def test_a_layer_keeps_what_transformer_engine_keeps():
    held = [
        rehearse_rank(small_run(batch=1, sizes={"num_layers": n}), 0).peak.activations
        for n in (4, 8)
    ]
    tokens, hidden, ffn = SIZES["seq_length"], SIZES["hidden_size"], SIZES["ffn_hidden_size"]
    keys, heads = hidden // 2, SIZES["num_attention_heads"]
    bf16 = 2 * (
        4 * hidden  # inputs and outputs of the two norms
        + (hidden + 2 * keys)  # query, key, value
        + hidden  # attention's output, which the projection takes
        + 2 * ffn  # SwiGLU's input
        + ffn  # and output
    )
    fp32 = 4 * (2 + heads)  # the norms' 1/rms, attention's normaliser per head
    assert held[1] - held[0] == 4 * tokens * (bf16 + fp32)


def test_collectives_are_those_of_sequence_parallelism():
    run = small_run(
        world_size=4, batch=4, tp=4, sequence_parallel=True, sizes={"num_query_groups": 4}
    )
    totals = rehearse_rank(run, 0).totals
    layers, batches = SIZES["num_layers"], 4
    whole = 2 * SIZES["seq_length"] * SIZES["hidden_size"]
    # Forward: before QKV and FC1; backward: before each of the four gradients and the two inputs
    # again; the output layer's input both ways, and the embedding's gradient.
    gathers = batches * (layers * 6 + 3)
    # The loss: normaliser and logit of the label, of every token and rank.
    assert totals["tp", "all_gather", "calls"] == gathers + batches
    numbers = 4 * 2 * 4 * SIZES["seq_length"]
    assert totals["tp", "all_gather", "bytes"] == gathers * whole + batches * numbers
    # Forward: after projection, FC2 and embedding; backward: after QKV, FC1 and output layer.
    assert totals["tp", "reduce_scatter", "calls"] == batches * (layers * 4 + 2)


def test_pipeline_sends_are_counted_by_hand():
    run = small_run(world_size=4, batch=16, pp=4, vpp=1)
    one = 2 * SIZES["seq_length"] * SIZES["hidden_size"]
    totals = rehearse_rank(run, 1).totals
    sent = sum(n for (_, name, what), n in totals.items() if (name, what) == ("send", "bytes"))
    assert sent == 2 * 16 * one


def test_data_parallel_gradients_are_reduced_once_a_step_in_fp32():
    run = small_run(world_size=2, batch=16)
    totals, padded = rehearse_rank(run, 1).totals, rehearse_rank(run, 1).peak
    assert totals["dp_cp", "reduce_scatter", "bytes"] == padded.gradients
    assert totals["dp_cp", "all_gather", "bytes"] == padded.weights


def real_step(run):
    """Peak of a step's allocations over what lay in memory before, by torch's own profiler."""
    from megatron_biollm.rehearsal.memory import MemoryLog

    groups = create_process_groups(run.parallel)
    _, trainer = build(run, groups, MemoryLog(), select_device("cpu"))
    batch = micro_batch(run)
    trainer.train_step(iter([batch] * run.num_microbatches), run.num_microbatches)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        trainer.train_step(iter([batch] * run.num_microbatches), run.num_microbatches)
    events = profile.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    now = peak = 0
    for _, change in changes:
        now += change
        peak = max(peak, now)
    return peak


@pytest.mark.parametrize("options", [{}, {"recompute_granularity": "full"}])
def test_peak_memory_is_that_of_a_real_run(world, options):
    # Large enough that what kernels use within themselves does not matter.
    sizes = {"seq_length": 512, "hidden_size": 256, "ffn_hidden_size": 512}
    run = small_run(batch=4, bf16=False, on_gpu=False, sizes=sizes, **options)
    real = world.run(1, real_step, run)[0]
    report = rehearse_rank(run, 0)
    assert report.peak.total - report.resident == pytest.approx(real, rel=0.02)


def test_the_loss_holds_the_logits_in_bf16_and_nowhere_in_fp32():
    first, second = (
        rehearse_rank(small_run(batch=1, sizes={"vocab_size": rows}), 0).peak
        for rows in (32_768, 65_536)
    )
    # Beside them core makes an empty bf16 gradient of the output layer's weight for autograd.
    expected = 32_768 * 2 * (SIZES["seq_length"] + SIZES["hidden_size"])
    work = [peak.activations + peak.temporary for peak in (first, second)]
    assert work[1] - work[0] == pytest.approx(expected, rel=0.01)


def test_what_only_the_first_step_does_is_not_drawn_out():
    line = _Line(short=1, long=4, full=24)
    assert line(1, 4) == 24
    assert line(2, 2) == 2
    assert line(2, 1) == 1  # an all-reduce of the first step, in core 0.19
