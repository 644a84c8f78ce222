"""Losses and gradients of preference steps: those of a plain model, in every layout."""

import math
from dataclasses import replace
from functools import cache

import pytest
import torch

from megatron_biollm.data.sampler import micro_batches
from megatron_biollm.finetune.preference_config import PreferenceLossConfig
from megatron_biollm.finetune.preference_loss import (
    PairLogps,
    kto_divergence,
    kto_losses,
    pair_losses,
    reward_losses,
)
from megatron_biollm.finetune.preference_objective import AnswerLogps
from tests.finetune import small_preferences as small
from tests.finetune.small_preferences import SAMPLES, PreferenceRun
from tests.integration.hugging_face import llama, to_hugging_face

SP = {"tensor_model_parallel_size": 2, "sequence_parallel": True}
PP = {"pipeline_model_parallel_size": 2}
CP = {"context_parallel_size": 2}
WHOLE = {"use_distributed_optimizer": False}
KTO = {"loss_type": "kto", "beta": 0.3, "desirable_weight": 1.3, "undesirable_weight": 0.6}
DPO = {"beta": 0.3, "sft_weight": 0.2}


@cache
def samples():
    source = small.made_source()
    rows = [source[i] for i in range(SAMPLES)]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


@pytest.fixture(scope="module")
def plain(world):
    """transformers' model with the same weights, and the head of the reward model."""
    run = PreferenceRun()
    weights = to_hugging_face(world.run(1, small.initial_weights, run)[0], run.sizes)
    head = world.run(1, small.initial_weights, PreferenceRun(loss=None))[0]
    model = llama(run.sizes, weights)
    model.score = torch.nn.Parameter(head["output_layer.weight"])
    return model


def plain_logps(model):
    """log p of every row's answer and its tokens, [samples, 2]."""
    batch = samples()
    logits = model(batch["tokens"].flatten(0, 1)).logits.log_softmax(-1)
    found = logits.gather(2, batch["labels"].flatten(0, 1)[..., None])[..., 0]
    kept = (found * batch["loss_mask"].flatten(0, 1)).double().sum(1)
    return kept.view(-1, 2), batch["loss_mask"].sum(2)


def plain_loss(model, loss):
    batch = samples()
    if loss is None:
        hidden = model.model(batch["tokens"].flatten(0, 1)).last_hidden_state
        ends = batch["length"].flatten() - 1
        scores = (hidden[torch.arange(len(ends)), ends] @ model.score[0]).view(-1, 2)
        return reward_losses(*scores.unbind(1), batch["margin"], 0.01).mean()
    (logps, tokens), reference = plain_logps(model), batch["reference"]
    config = PreferenceLossConfig(**loss)
    if config.loss_type == "kto":
        divergence = kto_divergence(logps[:, 1], reference[:, 1])
        label = batch["label"]
        return kto_losses(logps[:, 0], reference[:, 0], label, divergence, config).mean()
    columns = [x.unbind(1) for x in (logps, reference, tokens)]
    return pair_losses(PairLogps(*(row for two in columns for row in two)), config).mean()


def deviation(gradients, expected):
    difference = sum((gradients[name] - expected[name]).square().sum() for name in expected)
    return (difference / sum(value.square().sum() for value in expected.values())).sqrt().item()


CASES = [
    (DPO, 1, {}, 1),
    *[(loss, 1, {}, 4) for loss in (DPO, KTO, None)],
    *[(loss, 2, layout, 2) for loss in (DPO, KTO, None) for layout in (PP, CP)],
    (KTO, 2, {}, 2),
]


@pytest.mark.parametrize(
    ("loss", "size", "parallel", "micro_batch_size"),
    CASES,
    ids=[
        f"{'reward' if loss is None else loss.get('loss_type', 'dpo')}"
        f"-{next(iter(parallel), 'data')[:8]}{size}-of{mbs}"
        for loss, size, parallel, mbs in CASES
    ],
)
def test_the_gradient_is_that_of_the_mean_over_samples(
    world, plain, loss, size, parallel, micro_batch_size
):
    run = PreferenceRun(loss, parallel | WHOLE, micro_batch_size)
    found = {}
    for rank in reversed(world.run(size, small.gradients, run)):
        found |= rank
    plain.zero_grad()
    plain_loss(plain, loss).backward()
    expected = {n: p.grad.clone() for n, p in plain.named_parameters() if p.grad is not None}
    head = found["output_layer.weight"]
    if loss is None:
        found["output_layer.weight"] = torch.zeros(small.VOCABULARY, run.sizes.hidden_size)
    found = to_hugging_face(found, run.sizes) | {"score": head}
    assert deviation(found, expected) < 1e-5


@pytest.mark.parametrize("loss", [DPO, KTO, None], ids=["dpo", "kto", "reward"])
def test_three_steps_in_tp2_sp_pp2_are_those_of_one_process(world, loss):
    one = world.run(1, small.steps, PreferenceRun(loss, steps=3))[0]
    other = world.run(4, small.steps, PreferenceRun(loss, SP | PP, 2, steps=3))[0]
    for (expected, metrics), (found, others) in zip(one, other, strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
        assert others == pytest.approx(metrics, rel=1e-4, abs=1e-4)
    assert one[2][0] < one[0][0]


@pytest.mark.parametrize("micro_batch_size", [1, 8])
def test_at_the_reference_the_loss_is_log_2_and_rewards_are_0(world, micro_batch_size):
    loss, metrics = world.run(1, at_the_reference, micro_batch_size)[0]
    assert loss == pytest.approx(math.log(2), abs=1e-6)
    for name in ("chosen", "rejected", "margins"):
        assert metrics[f"rewards/{name}"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["kl"] == pytest.approx(0.0, abs=1e-5)


def at_the_reference(micro_batch_size):
    """A step whose reference log-probabilities came of micro-batches of 4."""
    trainer = small.build_trainer(PreferenceRun({"beta": 0.1}, micro_batch_size=4))
    source = small.made_source()
    found = replace(trainer, objective=AnswerLogps()).outputs(
        micro_batches(source, 0, 4, 0, 1), SAMPLES // 4
    )
    source.reference = torch.cat([one["logps"] for one in found]).numpy()
    trainer.micro_batch_size = micro_batch_size
    batches = micro_batches(source, 0, micro_batch_size, 0, 1)
    step = trainer.train_step(batches, SAMPLES // micro_batch_size)
    return step.loss, step.metrics


@pytest.mark.parametrize("name", ["sigmoid", "robust", "ipo", "sigmoid_norm"])
def test_the_step_s_gradient_is_trl_s_on_the_same_weights(world, plain, name, tmp_path):
    pytest.importorskip("trl", reason="parity with TRL needs trl, of the dev extra")
    from megatron_biollm.recipes.benchmarks.dpo import as_collated, peer_trainer, quiet

    options = {"label_smoothing": 0.2} if name == "robust" else {}
    run = PreferenceRun({"loss_type": name, "beta": 0.5, **options}, WHOLE, 2)
    found = to_hugging_face(world.run(1, small.gradients, run)[0], run.sizes)
    model = llama(run.sizes, {n: w for n, w in plain.state_dict().items() if n != "score"})
    with quiet():
        trainer = peer_trainer(model, tmp_path)
    trainer.loss_types, trainer.loss_weights = [name], [1.0]
    trainer.beta, trainer.label_smoothing = 0.5, options.get("label_smoothing", 0.0)
    trainer.compute_loss(model, as_collated(samples())).backward()
    expected = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert deviation(found, expected) < 1e-5
