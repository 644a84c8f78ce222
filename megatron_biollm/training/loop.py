"""Steps until the run is over. Knows hooks, and no checkpoint, evaluation or log."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from megatron_biollm.training.config import TrainingConfig
from megatron_biollm.training.stability import Action, Guard
from megatron_biollm.training.state import TrainState
from megatron_biollm.training.step import Batch, Trainer

Hook = Callable[[TrainState, dict[str, Any]], None]


def train(
    trainer: Trainer,
    state: TrainState,
    config: TrainingConfig,
    batches: Iterator[Batch],
    hooks: Sequence[Hook],
    guard: Guard,
) -> None:
    """Trains until `train_iters`, or until `exit_interval` divides the step.

    Args:
        trainer: one step.
        state: where to start; advanced in place.
        config: batch sizes and length.
        batches: micro-batches of this rank from `state.consumed_samples` on.
        hooks: called in order after each step with the state and the step's numbers (`loss`,
            `grad_norm`, `learning_rate`, `step_time_s`, ..., the objective's metrics), to which a
            hook may add.
        guard: decides what becomes of a step that is not healthy; one whose update was skipped
            counts, and its numbers hold `skipped`.

    Raises:
        Rewind, Unstable: by the guard; `state` is that of the step before.
    """
    divisor = config.micro_batch_size * trainer.model.groups.dp.size()
    while state.step < config.train_iters:
        samples = config.global_batch_size_at(state.consumed_samples)
        start = time.perf_counter()
        result = trainer.train_step(batches, samples // divisor, partial(guard.judge, state))
        action = guard.settle(state, result.action, samples, result.batch_hash)
        guard.remember(state, action, result.loss, result.grad_norm)
        state.advance(samples, trainer.tokens_per_sample)
        trainer.phases.stepped(state.step)
        row = {
            "step": state.step,
            "consumed_samples": state.consumed_samples,
            "consumed_tokens": state.consumed_tokens,
            "loss": result.loss,
            "grad_norm": result.grad_norm,
            "learning_rate": result.learning_rate,
            "step_time_s": time.perf_counter() - start,
            "batch_hash": f"{result.batch_hash:016x}",
            **result.metrics,
            **({"computed_share": result.computed_share} if result.computed_share < 1 else {}),
            **({"skipped": True} if action is Action.SKIP else {}),
        }
        for hook in hooks:
            hook(state, row)
        if config.exit_interval and state.step % config.exit_interval == 0:
            return
