"""Every layout trains as one process does: same losses, gradient norms and batches, step by step.

The initial weights depend on the seed alone, so each run starts from the same model.
"""

import pytest

from tests.integration.small_run import (
    SmallRun,
    build_trainer,
    largest_deviation,
    train_small,
    train_steps,
)

TP = "tensor_model_parallel_size"
PP = "pipeline_model_parallel_size"
VPP = "virtual_pipeline_model_parallel_size"
CP = "context_parallel_size"
SP = {"sequence_parallel": True}
FULL = {"recompute_granularity": "full"}
SELECTIVE = {"recompute_granularity": "selective"}
OVERLAP = {"overlap_grad_reduce": True, "overlap_param_gather": True}

LAYOUTS = {
    "TP2": (2, {TP: 2}),
    "TP2+SP": (2, {TP: 2, **SP}),
    "PP2": (2, {PP: 2}),
    "PP2xVPP2": (2, {PP: 2, VPP: 2}),
    "PP4": (4, {PP: 4}),
    "CP2": (2, {CP: 2}),
    "DP2": (2, {}),
    "DP2, whole optimizer on each rank": (2, {"use_distributed_optimizer": False}),
    "TP2xPP2+SP": (4, {TP: 2, PP: 2, **SP}),
    "TP2xCP2": (4, {TP: 2, CP: 2}),
    "CP2xDP2": (4, {CP: 2}),
    "TP2xPP2xDP2+SP": (8, {TP: 2, PP: 2, **SP}),
}
RECOMPUTE = {
    "selective, attention": (1, SELECTIVE),
    "selective, attention and mlp": (1, SELECTIVE | {"recompute_modules": ["core_attn", "mlp"]}),
    "full, uniform": (1, FULL),
    "full, uniform by two": (1, FULL | {"recompute_num_layers": 2}),
    "full, block of two": (1, FULL | {"recompute_method": "block", "recompute_num_layers": 2}),
    "full, PP2xVPP2": (2, FULL | {PP: 2, VPP: 2}),
    "full, TP2+SP": (2, FULL | SP | {TP: 2}),
}
OVERLAPPED = {
    "gradients": (2, {"overlap_grad_reduce": True}),
    "gradients and parameters": (2, OVERLAP),
    "gradients and parameters, PP2xVPP2xDP2": (4, OVERLAP | {PP: 2, VPP: 2}),
    "pipeline": (2, {PP: 2, VPP: 2, "overlap_p2p_comm": True}),
}


def cases(table):
    return pytest.mark.parametrize(("size", "parallel"), table.values(), ids=table)


@pytest.fixture(scope="module")
def one_process(world):
    return world.run(1, train_small, SmallRun())[0]


def assert_equal(ranks, reference, bar, name):
    """Every rank reports the steps of `reference`, the losses within `bar`."""
    steps = ranks[0]
    assert all(rank == steps for rank in ranks), "ranks differ"
    loss = largest_deviation([s.loss for s in steps], [s.loss for s in reference])
    norm = largest_deviation([s.grad_norm for s in steps], [s.grad_norm for s in reference])
    print(f"{name}: loss {loss:.1e}, gradient norm {norm:.1e}")
    assert loss < bar
    assert norm < 10 * bar
    for one, other in zip(steps, reference, strict=True):
        assert (one.batch_hash, one.tokens) == (other.batch_hash, other.tokens)
        assert one.learning_rate == other.learning_rate


@cases(LAYOUTS)
def test_every_layout_equals_one_process(world, one_process, size, parallel, request):
    ranks = world.run(size, train_small, SmallRun(parallel))
    assert_equal(ranks, one_process, 1e-5, request.node.name)


@cases(RECOMPUTE)
def test_recomputed_activations_change_nothing(world, one_process, size, parallel, request):
    ranks = world.run(size, train_small, SmallRun(parallel))
    assert_equal(ranks, one_process, 1e-5, request.node.name)


@cases(OVERLAPPED)
def test_overlapped_communication_changes_nothing(world, one_process, size, parallel, request):
    ranks = world.run(size, train_small, SmallRun(parallel))
    assert_equal(ranks, one_process, 1e-5, request.node.name)


def count_attention_calls(run):
    trainer, calls = build_trainer(run), []
    for layer in trainer.model.bare_chunks[0].decoder.layers:
        layer.self_attention.core_attention.register_forward_hook(lambda *_: calls.append(1))
    train_steps(trainer, run)
    return len(calls)


@pytest.mark.parametrize(
    ("parallel", "times"),
    [({}, 1), (SELECTIVE, 2), (FULL, 2), (RECOMPUTE["full, block of two"][1], 1.5)],
)
def test_what_is_to_be_recomputed_runs_again(world, parallel, times):
    run = SmallRun(parallel, steps=1)
    micro_batches = run.global_batch_size // run.micro_batch_size
    calls = world.run(1, count_attention_calls, run)[0]
    assert calls == times * micro_batches * run.sizes.num_layers


@pytest.fixture(scope="module")
def packed_in_one_process(world):
    return world.run(1, train_small, SmallRun(packed=True))[0]


@cases({name: LAYOUTS[name] for name in ("TP2+SP", "PP2", "PP2xVPP2", "DP2")})
def test_packed_documents_equal_one_process(world, packed_in_one_process, size, parallel, request):
    ranks = world.run(size, train_small, SmallRun(parallel, packed=True))
    assert_equal(ranks, packed_in_one_process, 1e-5, request.node.name)


def test_packed_documents_do_not_see_each_other(one_process, packed_in_one_process):
    assert [s.batch_hash for s in one_process] == [s.batch_hash for s in packed_in_one_process]
    assert abs(one_process[-1].loss / packed_in_one_process[-1].loss - 1) > 1e-4


@pytest.fixture(scope="module")
def bf16_in_one_process(world):
    return world.run(1, train_small, SmallRun(bf16=True))[0]


@cases({name: LAYOUTS[name] for name in ("TP2+SP", "PP2xVPP2", "CP2", "DP2")})
def test_bf16_equals_one_process_within_its_precision(
    world, bf16_in_one_process, size, parallel, request
):
    ranks = world.run(size, train_small, SmallRun(parallel, bf16=True))
    assert_equal(ranks, bf16_in_one_process, 2e-3, request.node.name)


def test_bf16_follows_fp32(one_process, bf16_in_one_process):
    losses = [step.loss for step in bf16_in_one_process]
    assert losses != [step.loss for step in one_process]
    assert largest_deviation(losses, [step.loss for step in one_process]) < 2e-2


def train_without_adding_up_norm_gradients(run):
    trainer = build_trainer(run)
    for parameter in trainer.model.chunks[0].parameters():
        parameter.sequence_parallel = False
    return train_steps(trainer, run)


def test_the_comparison_sees_one_missing_reduction(world, one_process):
    parallel = LAYOUTS["TP2+SP"][1]
    steps = world.run(2, train_without_adding_up_norm_gradients, SmallRun(parallel))[0]
    assert largest_deviation([s.loss for s in steps], [s.loss for s in one_process]) > 1e-4


def test_the_comparison_sees_another_seed(world, one_process):
    steps = world.run(1, train_small, SmallRun(seed=2))[0]
    assert largest_deviation([s.loss for s in steps], [s.loss for s in one_process]) > 1e-3
