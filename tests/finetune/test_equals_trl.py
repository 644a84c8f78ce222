"""Losses, gradients and metrics of one batch are those of TRL on the same model.

Where TRL differs on purpose: conservative DPO is no loss of its any more (the hand formula is in
test_preference_loss.py), and its `sft` term weighs tokens where ours weighs pairs.
"""

from functools import cache

import pytest
import torch

from megatron_biollm.finetune.preference_config import PreferenceLossConfig
from megatron_biollm.finetune.preference_loss import (
    PairLogps,
    kto_divergence,
    kto_losses,
    pair_losses,
    reward_losses,
)
from megatron_biollm.finetune.preference_metrics import pair_metrics, reward_metrics
from tests.finetune import trl_batches as trl_side

pytest.importorskip("trl", reason="parity with TRL needs trl, of the dev extra")
REL = 1e-5


def as_ours(model, reference, batch):
    logps, tokens = trl_side.answer_logps(model, batch["input_ids"], batch["completion_mask"])
    with torch.no_grad():
        kept, _ = trl_side.answer_logps(reference, batch["input_ids"], batch["completion_mask"])
    halves = [half for both in (logps, kept, tokens) for half in both.chunk(2)]
    return PairLogps(*halves)


def means(metrics):
    return {name: (total / weight).item() for name, (total, weight) in metrics.items()}


@cache
def dpo_trainer():
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    with trl_side.quiet():
        return DPOTrainer(
            model=trl_side.tiny_llama(0),
            ref_model=trl_side.tiny_llama(1),
            args=DPOConfig(**trl_side.settings()),
            train_dataset=Dataset.from_list(trl_side.pair_rows()),
            processing_class=trl_side.word_tokenizer(),
        )


def assert_same(model, ours, theirs):
    assert ours.item() == pytest.approx(theirs.item(), rel=REL)
    mine, others = trl_side.gradient(model, ours), trl_side.gradient(model, theirs)
    assert others.norm() > 1e-3
    assert (mine - others).norm() <= REL * others.norm()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sigmoid", {"beta": 0.1}),
        ("sigmoid", {"beta": 0.7}),
        ("robust", {"beta": 0.3, "label_smoothing": 0.2}),
        ("ipo", {"beta": 0.1}),
        ("sigmoid_norm", {"beta": 2.0}),
        ("hinge", {"beta": 0.3}),
    ],
)
def test_pair_loss_and_gradient_are_trl_s(name, options):
    trainer = dpo_trainer()
    batch = trl_side.collated(trainer)
    trainer.loss_types, trainer.loss_weights = [name], [1.0]
    trainer.beta = options["beta"]
    trainer.label_smoothing = options.get("label_smoothing", 0.0)
    theirs = trainer._compute_loss(trainer.model, batch, return_outputs=False)
    config = PreferenceLossConfig(loss_type=name, **options)
    logps = as_ours(trainer.model, trainer.ref_model, batch)
    assert_same(trainer.model, pair_losses(logps, config).mean(), theirs)


def test_metrics_are_trl_s():
    trainer = dpo_trainer()
    batch = trl_side.collated(trainer)
    trainer.loss_types, trainer.loss_weights, trainer.beta = ["sigmoid"], [1.0], 0.1
    trainer._metrics["train"].clear()
    trainer._compute_loss(trainer.model, batch, return_outputs=False)
    logps = as_ours(trainer.model, trainer.ref_model, batch)
    ours = means(pair_metrics(logps, beta=0.1))
    shared = set(ours) & set(trainer._metrics["train"])
    assert shared == {
        "rewards/chosen",
        "rewards/rejected",
        "rewards/margins",
        "rewards/accuracies",
        "logps/chosen",
        "logps/rejected",
    }
    for name in shared:
        assert ours[name] == pytest.approx(trainer._metrics["train"][name][0], rel=REL), name


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.3, 0.6)])
def test_kto_loss_and_gradient_are_trl_s(weights):
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    desirable, undesirable = weights
    with trl_side.quiet():
        trainer = KTOTrainer(
            model=trl_side.tiny_llama(0),
            ref_model=trl_side.tiny_llama(1),
            args=KTOConfig(
                **trl_side.settings(
                    beta=0.3,
                    per_device_train_batch_size=3,
                    desirable_weight=desirable,
                    undesirable_weight=undesirable,
                ),
            ),
            train_dataset=Dataset.from_list(trl_side.unpaired_rows()),
            processing_class=trl_side.word_tokenizer(),
        )
    batch = trl_side.collated(trainer)
    theirs = trainer._compute_loss(trainer.model, batch, return_outputs=False)
    answers, mismatched = (
        as_answers(trainer.model, trainer.ref_model, batch, prefix) for prefix in ("", "KL_")
    )
    divergence = kto_divergence(*mismatched)
    # A small difference of sums around 15, so what fp32 leaves of it.
    assert divergence.item() == pytest.approx(trainer._metrics["train"]["kl"][0], abs=15 * REL)
    config = PreferenceLossConfig(
        loss_type="kto", beta=0.3, desirable_weight=desirable, undesirable_weight=undesirable
    )
    labels = torch.as_tensor(batch["label"], dtype=torch.bool)
    assert_same(trainer.model, kto_losses(*answers, labels, divergence, config).mean(), theirs)


def as_answers(model, reference, batch, prefix):
    inputs = batch[f"{prefix}input_ids"], batch[f"{prefix}completion_mask"]
    with torch.no_grad():
        kept, _ = trl_side.answer_logps(reference, *inputs)
    return trl_side.answer_logps(model, *inputs)[0], kept


def test_reward_loss_and_gradient_are_trl_s():
    from datasets import Dataset
    from transformers import LlamaForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    config = trl_side.tiny_llama(0).config
    config.num_labels, config.pad_token_id = 1, 1
    torch.manual_seed(0)
    with trl_side.quiet():
        trainer = RewardTrainer(
            model=LlamaForSequenceClassification(config),
            args=RewardConfig(**trl_side.settings(center_rewards_coefficient=0.01)),
            train_dataset=Dataset.from_list(trl_side.pair_rows()),
            processing_class=trl_side.word_tokenizer(),
        )
        batch = trl_side.collated(trainer)
        theirs = trainer.compute_loss(trainer.model, dict(batch))
    scores = trainer.model(**{n: batch[n] for n in ("input_ids", "attention_mask")}).logits[:, 0]
    chosen, rejected = scores.chunk(2)
    ours = reward_losses(chosen, rejected, center_weight=0.01).mean()
    assert_same(trainer.model, ours, theirs)
    metrics = means(reward_metrics(chosen, rejected))
    for name in ("accuracy", "margin", "mean_reward"):
        assert metrics[name] == pytest.approx(trainer._metrics["train"][name][0], rel=REL), name
