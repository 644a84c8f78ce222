"""A small training run on the worker processes: data, trainer and steps of one layout."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from megatron_biollm.device.runtime import Device, select_device
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.model.lora_config import LoraConfig
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.parallel.parallelize import parallelize
from megatron_biollm.parallel.process_groups import create_process_groups
from megatron_biollm.training.config import OptimizerConfig
from megatron_biollm.training.optimizer import build_optimizer, build_scheduler
from megatron_biollm.training.step import Batch, StepResult, Trainer

SEQ_LENGTH = 64
VOCABULARY = 512
# Larger initial weights than usual, so that every layer matters to the loss from the first step.
SIZES = {
    "num_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 8,
    "num_query_groups": 4,
    "ffn_hidden_size": 96,
    "seq_length": SEQ_LENGTH,
    "vocab_size": VOCABULARY,
    "make_vocab_size_divisible_by": VOCABULARY,
    "init_method_std": 0.1,
}


@dataclass(frozen=True)
class SmallRun:
    """Attributes:
    parallel: fields of `ParallelConfig`.
    model: fields of `ModelConfig` other than those of `SIZES`.
    steps: optimizer steps.
    bf16: bf16 parameters with fp32 main gradients.
    packed: two documents in every sequence that do not see each other.
    lora: fields of `LoraConfig`; None trains the whole model.
    """

    parallel: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    steps: int = 20
    bf16: bool = False
    packed: bool = False
    lora: dict[str, Any] | None = None
    micro_batch_size: int = 2
    global_batch_size: int = 8
    seed: int = 1

    @property
    def sizes(self) -> ModelConfig:
        return ModelConfig(**(SIZES | self.model))

    @property
    def optimizer(self) -> OptimizerConfig:
        return OptimizerConfig(lr=5e-3, lr_warmup_iters=4, weight_decay=0.1, clip_grad=1.0)


def sample(index: int, packed: bool = False) -> Batch:
    """Sequence `index`: each token follows from the one before by a rule, with some noise.

    A random number of tokens, up to half of them, does not count: token counts are unequal.
    """
    random = torch.Generator().manual_seed(index)
    noise = torch.rand(SEQ_LENGTH + 1, generator=random)
    draws = torch.randint(VOCABULARY, (SEQ_LENGTH + 1,), generator=random)
    ids = draws.clone()
    for place in range(1, SEQ_LENGTH + 1):
        if noise[place] < 0.7:
            ids[place] = (ids[place - 1] * 5 + 7) % 64
    loss_mask = torch.ones(SEQ_LENGTH)
    loss_mask[: int(draws[0]) % (SEQ_LENGTH // 2)] = 0.0
    first = 1 + int(draws[1]) % (SEQ_LENGTH - 2)
    lengths = [first, SEQ_LENGTH - first] if packed else [SEQ_LENGTH]
    return {
        "tokens": ids[:-1],
        "labels": ids[1:],
        "loss_mask": loss_mask,
        "position_ids": torch.cat([torch.arange(length) for length in lengths]),
    }


def stack(samples: list[Batch]) -> Batch:
    return {name: torch.stack([one[name] for one in samples]) for name in samples[0]}


def micro_batches(run: SmallRun, rank: int, size: int) -> Iterator[Batch]:
    """Micro-batch k of data-parallel rank r holds samples k*mbs*dp + r*mbs + [0, mbs)."""
    width = run.micro_batch_size
    first = rank * width
    while True:
        yield stack([sample(i, run.packed) for i in range(first, first + width)])
        first += width * size


def build_trainer(run: SmallRun, device: Device | None = None) -> Trainer:
    """Model, optimizer and schedule on this rank of the world; without `device` on the CPU."""
    parallel = ParallelConfig(**run.parallel)
    device, groups = device or select_device("cpu"), create_process_groups(parallel)
    lora = None if run.lora is None else LoraConfig(**run.lora)
    model = parallelize(run.sizes, parallel, device, groups, run.bf16, run.seed, lora=lora)
    optimizer = build_optimizer(model, run.optimizer, parallel.use_distributed_optimizer)
    scheduler = build_scheduler(optimizer, run.optimizer, run.steps)
    return Trainer(model, optimizer, scheduler, SEQ_LENGTH, run.micro_batch_size, run.packed)


def train_steps(trainer: Trainer, run: SmallRun) -> list[StepResult]:
    dp = trainer.model.groups.dp
    batches = micro_batches(run, dp.rank(), dp.size())
    count = run.global_batch_size // (run.micro_batch_size * dp.size())
    return [trainer.train_step(batches, count) for _ in range(run.steps)]


def train_small(run: SmallRun) -> list[StepResult]:
    """Every step's numbers; runs on each rank of the world."""
    return train_steps(build_trainer(run), run)


def largest_deviation(values: list[float], reference: list[float]) -> float:
    """The largest relative deviation over the steps."""
    pairs = zip(values, reference, strict=True)
    return max(abs(value - expected) / abs(expected) for value, expected in pairs)
