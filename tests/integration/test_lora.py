"""Adapters alone are trained, the same in every layout, with the gradients that PEFT gives them."""

from functools import partial

import pytest
import torch

from tests.integration import hugging_face
from tests.integration.small_run import (
    SmallRun,
    build_trainer,
    largest_deviation,
    micro_batches,
    sample,
    stack,
    train_small,
    train_steps,
)

TP, PP = "tensor_model_parallel_size", "pipeline_model_parallel_size"
VPP = "virtual_pipeline_model_parallel_size"
SP = {TP: 2, "sequence_parallel": True}
LORA = {"rank": 4, "alpha": 8.0}
STEPS = 6
LAYOUTS = {
    "TP2": (2, {TP: 2}),
    "TP2+SP": (2, SP),
    "PP2xVPP2": (2, {PP: 2, VPP: 2}),
    "DP2": (2, {}),
    "TP2xPP2+SP, full recompute": (4, {**SP, PP: 2, "recompute_granularity": "full"}),
}


def with_lora(parallel=None, **fields):
    return SmallRun(parallel=parallel or {}, steps=STEPS, lora=LORA, **fields)


@pytest.fixture(scope="module")
def alone(world):
    return world.run(1, train_small, with_lora())[0]


def assert_same(results, alone):
    for name in ("loss", "grad_norm"):
        mine, others = ([getattr(one, name) for one in run] for run in (results, alone))
        assert largest_deviation(mine, others) < 1e-5, name


@pytest.mark.parametrize(("size", "parallel"), LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_trains_as_one_process(world, alone, size, parallel):
    assert_same(world.run(size, train_small, with_lora(parallel))[0], alone)


@pytest.mark.parametrize("granularity", ["full", "selective"])
def test_recomputed_activations_change_nothing(world, alone, granularity):
    run = with_lora({"recompute_granularity": granularity})
    assert [r.loss for r in world.run(1, train_small, run)[0]] == [r.loss for r in alone]


def without_the_mark(run):
    """As if core were not told that each rank has seen a part of the sequence only."""
    trainer = build_trainer(run)
    for name, parameter in trainer.model.bare_chunks[0].named_parameters():
        if "_lora." in name:
            parameter.sequence_parallel = False
    return train_steps(trainer, run)


def test_the_comparison_of_layouts_can_fail(world, alone):
    with pytest.raises(AssertionError):
        assert_same(world.run(2, without_the_mark, with_lora(SP))[0], alone)


def test_adapters_begin_by_changing_nothing(world, alone):
    whole = world.run(1, train_small, SmallRun(steps=2))[0]
    assert whole[0].loss == alone[0].loss  # to the bit
    assert whole[1].loss == alone[1].loss  # the first step of the warm-up has a rate of 0


def numbers(run):
    """How many are trained, have state in the optimizer, and have changed; all of the model's."""
    trainer = build_trainer(run)
    (model,) = trainer.model.bare_chunks
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    train_steps(trainer, run)
    after = dict(model.named_parameters())
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    trained = [name for name, value in after.items() if value.requires_grad]
    count = sum(p.numel() for g in trainer.optimizer.param_groups for p in g["params"])
    return sorted(trained), sorted(changed), count, sum(p.numel() for p in after.values())


def test_the_optimizer_has_the_adapters_alone(world):
    trained, changed, count, everything = world.run(1, numbers, with_lora())[0]
    assert trained == changed and all("_lora." in name for name in trained)
    sizes, rank = with_lora().sizes, LORA["rank"]
    h, ffn, qkv = sizes.hidden_size, sizes.ffn_hidden_size, 2 * sizes.hidden_size
    per_layer = rank * ((h + qkv) + (h + h) + (h + 2 * ffn) + (ffn + h))
    assert count == sizes.num_layers * per_layer < everything / 10


def test_the_layers_that_get_one_are_chosen(world):
    run = SmallRun(steps=STEPS, lora=LORA | {"target_modules": ["linear_qkv"]})
    trained, changed, *_ = world.run(1, numbers, run)[0]
    assert trained == changed and len(trained) == 2 * run.sizes.num_layers


def gradients(run):
    """Weights of a model whose adapters do something, and the adapters' gradients of one batch."""
    trainer = build_trainer(run)
    (model,) = trainer.model.bare_chunks
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("_lora.b"):
                value.copy_(0.1 * torch.randn(value.shape, generator=generator))
    trainer.optimizer.step = lambda: (True, 0.0, 0)
    trainer.train_step(micro_batches(run, 0, 1), run.global_batch_size // run.micro_batch_size)
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    return weights, {n: p.main_grad.clone() for n, p in model.named_parameters() if "_lora." in n}


def peft_model(weights, sizes):
    """The same base and the same adapters in PEFT."""
    peft = pytest.importorskip("peft", reason="parity with PEFT needs peft, of the dev extra")
    base = hugging_face.llama(sizes, hugging_face.to_hugging_face(weights, sizes))
    config = peft.LoraConfig(
        r=LORA["rank"],
        lora_alpha=LORA["alpha"],
        target_modules="all-linear",
        exclude_modules=["lm_head"],
    )
    model = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, (a, b) in hugging_face.adapters_of(weights, sizes).items():
            layer = model.get_submodule(f"base_model.model.{name}")
            layer.lora_A["default"].weight.copy_(a)
            layer.lora_B["default"].weight.copy_(b)
    return model


def run_backward(model, run):
    batch = stack([sample(i) for i in range(run.global_batch_size)])
    (hugging_face.summed_token_loss(model, batch) / batch["loss_mask"].sum()).backward()


def deviation(mine, theirs):
    return float((mine - theirs).norm() / theirs.norm())


@pytest.fixture(scope="module")
def pair(world):
    run = with_lora()
    weights, ours = world.run(1, gradients, run)[0]
    model = peft_model(weights, run.sizes)
    run_backward(model, run)
    return ours, partial(grad_of, model), run.sizes


def grad_of(model, layer, part, which):
    module = model.get_submodule(f"base_model.model.model.layers.{layer}.{part}")
    return getattr(module, f"lora_{which}")["default"].weight.grad


PARTS = {
    "self_attention.linear_qkv": [f"self_attn.{x}_proj" for x in "qkv"],
    "self_attention.linear_proj": ["self_attn.o_proj"],
    "mlp.linear_fc1": ["mlp.gate_proj", "mlp.up_proj"],
    "mlp.linear_fc2": ["mlp.down_proj"],
}


@pytest.mark.parametrize("path", PARTS)
def test_gradients_are_those_of_peft(pair, path):
    """A is one for the parts of a layer, so its gradient is the sum of theirs."""
    ours, theirs, sizes = pair
    for layer in range(sizes.num_layers):
        name = f"decoder.layers.{layer}.{path}_lora"
        expected = sum(theirs(layer, part, "A") for part in PARTS[path])
        assert deviation(ours[f"{name}.a"], expected) < 1e-5
        parts = hugging_face.parts_of_rows(path, ours[f"{name}.b"], sizes)
        for part, rows in zip(PARTS[path], parts, strict=True):
            assert deviation(rows, theirs(layer, part, "B")) < 1e-5


def test_rows_of_queries_and_keys_in_the_wrong_order_would_be_seen(pair):
    ours, theirs, sizes = pair
    b = ours["decoder.layers.0.self_attention.linear_qkv_lora.b"]
    assert deviation(b[: sizes.hidden_size], theirs(0, "self_attn.q_proj", "B")) > 0.1
