"""Preference steps of a small model on test workers, in any layout, over made-up ids."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from megatron_biollm.data.sampler import micro_batches
from megatron_biollm.device.runtime import select_device
from megatron_biollm.finetune.encoded_preferences import EncodedPreferences, EncodingKey
from megatron_biollm.finetune.preference_config import PreferenceLossConfig
from megatron_biollm.finetune.preference_dataset import PreferenceSource, RowSettings
from megatron_biollm.finetune.preference_objective import (
    AnswerLogps,
    KtoObjective,
    PairObjective,
    RewardObjective,
)
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.model.scalar_head import ScalarHead
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.parallel.parallelize import parallelize
from megatron_biollm.parallel.process_groups import create_process_groups
from megatron_biollm.training.config import OptimizerConfig
from megatron_biollm.training.optimizer import build_optimizer, build_scheduler
from megatron_biollm.training.step import Trainer
from tests.integration.small_run import SIZES

SEQ_LENGTH, VOCABULARY, SAMPLES, PAD = 48, 96, 8, 0


@dataclass(frozen=True)
class PreferenceRun:
    """Attributes:
    loss: fields of `PreferenceLossConfig`; None trains a reward model.
    parallel: fields of `ParallelConfig`.
    """

    loss: dict[str, Any] | None = field(default_factory=dict)
    parallel: dict[str, Any] = field(default_factory=dict)
    micro_batch_size: int = 1
    steps: int = 1

    @property
    def sizes(self) -> ModelConfig:
        small = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4}
        small |= {"num_query_groups": 2, "ffn_hidden_size": 48, "seq_length": SEQ_LENGTH}
        small |= {"vocab_size": VOCABULARY, "make_vocab_size_divisible_by": VOCABULARY}
        return ModelConfig(**(SIZES | small))


def made_file(samples: int = SAMPLES) -> EncodedPreferences:
    """Pairs of unequal lengths: a prompt, then two answers that differ."""
    random = np.random.default_rng(3)
    tokens, answer, ends = [], [], [0]
    for _ in range(samples):
        prompt = random.integers(1, VOCABULARY, random.integers(3, 12))
        for _ in range(2):
            said = random.integers(1, VOCABULARY, random.integers(1, SEQ_LENGTH - 12))
            tokens += [*prompt, *said]
            answer += [False] * len(prompt) + [True] * len(said)
            ends.append(len(tokens))
    return EncodedPreferences(
        "made",
        Path("made"),
        EncodingKey("", "", "", False, SEQ_LENGTH, "drop"),
        np.array(tokens, np.int32),
        np.array(answer),
        np.array(ends),
        random.random(samples).astype(np.float32),
        random.random(samples) < 0.5,
        np.arange(1, samples + 1),
        np.arange(samples, dtype=np.uint64),
        {},
    )


def made_reference(samples: int = SAMPLES) -> np.ndarray:
    """Near what the initial model says, so that losses are neither 0 nor saturated."""
    data, random = made_file(samples), np.random.default_rng(4)
    lengths = [[data.row(i, which)[1].sum() for which in (0, 1)] for i in range(samples)]
    return -np.array(lengths) * (np.log(VOCABULARY) + 0.5 * random.random((samples, 2)))


def made_source() -> PreferenceSource:
    source = PreferenceSource(made_file(), RowSettings(SEQ_LENGTH, PAD, seed=1))
    source.reference = made_reference()
    return source


def objective_of(run: PreferenceRun) -> AnswerLogps:
    if run.loss is None:
        return RewardObjective(center_weight=0.01, use_margin=True)
    config = PreferenceLossConfig(**run.loss)
    return (KtoObjective if config.loss_type == "kto" else PairObjective)(config)


def build_trainer(run: PreferenceRun) -> Trainer:
    parallel = ParallelConfig(**run.parallel)
    device, groups = select_device("cpu"), create_process_groups(parallel)
    head = ScalarHead if run.loss is None else None
    model = parallelize(run.sizes, parallel, device, groups, False, seed=1, head=head)
    options = OptimizerConfig(lr=5e-3, lr_warmup_iters=0, weight_decay=0.0, clip_grad=1.0)
    optimizer = build_optimizer(model, options, parallel.use_distributed_optimizer)
    scheduler = build_scheduler(optimizer, options, max(run.steps, 1))
    return Trainer(
        model,
        optimizer,
        scheduler,
        SEQ_LENGTH,
        run.micro_batch_size,
        objective=objective_of(run),
    )


def steps(run: PreferenceRun) -> list[tuple[float, dict[str, float]]]:
    """Loss and metrics of each step over all samples; runs on each rank of the world."""
    trainer = build_trainer(run)
    return [(one.loss, one.metrics) for one in _steps(trainer, run)]


def gradients(run: PreferenceRun) -> dict[str, torch.Tensor]:
    """Of the first step, by the global names of the weights; without a sharded optimizer."""
    trainer = build_trainer(run)
    trainer.optimizer.step = lambda: (True, 0.0, 0)
    _steps(trainer, run)
    found = {}
    for chunk in trainer.model.bare_chunks:
        first = chunk.decoder.layers[0].layer_number - 1
        for name, parameter in chunk.named_parameters():
            parts = name.split(".")
            if parts[1] == "layers":
                parts[2] = str(int(parts[2]) + first)
            found[".".join(parts)] = parameter.main_grad.clone()
    return found


def initial_weights(run: PreferenceRun) -> dict[str, torch.Tensor]:
    chunk = build_trainer(run).model.bare_chunks[0]
    return {name: value.detach().clone() for name, value in chunk.named_parameters()}


def _steps(trainer: Trainer, run: PreferenceRun) -> list:
    dp = trainer.model.groups.dp
    number = SAMPLES // (run.micro_batch_size * dp.size())
    found = []
    for _ in range(run.steps):
        batches = micro_batches(made_source(), 0, run.micro_batch_size, dp.rank(), dp.size())
        found.append(trainer.train_step(batches, number))
    return found
