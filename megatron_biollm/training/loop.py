"""Steps until the run is over. Knows hooks, and no checkpoint, evaluation or log."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from megatron_biollm.training.config import TrainingConfig
from megatron_biollm.training.state import TrainState
from megatron_biollm.training.step import Batch, NonFiniteLoss, Trainer

Hook = Callable[[TrainState, dict[str, Any]], None]


def train(
    trainer: Trainer,
    state: TrainState,
    config: TrainingConfig,
    batches: Iterator[Batch],
    hooks: Sequence[Hook],
) -> None:
    """Trains until `train_iters`, or until `exit_interval` divides the step.

    Args:
        trainer: one step.
        state: where to start; advanced in place.
        config: batch sizes and length.
        batches: micro-batches of this rank from `state.consumed_samples` on.
        hooks: called in order after each step with the state and the step's numbers (`loss`,
            `grad_norm`, `learning_rate`, `step_time_s`, ...), to which a hook may add.

    Raises:
        NonFiniteLoss: naming the step and its samples; `state` is that of the step before.
    """
    divisor = config.micro_batch_size * trainer.model.groups.dp.size()
    while state.step < config.train_iters:
        samples = config.global_batch_size_at(state.consumed_samples)
        start = time.perf_counter()
        try:
            result = trainer.train_step(batches, samples // divisor)
        except NonFiniteLoss as error:
            raise NonFiniteLoss(_where(state, samples, error)) from error
        state.advance(samples, trainer.seq_length)
        row = {
            "step": state.step,
            "consumed_samples": state.consumed_samples,
            "consumed_tokens": state.consumed_tokens,
            "loss": result.loss,
            "grad_norm": result.grad_norm,
            "learning_rate": result.learning_rate,
            "step_time_s": time.perf_counter() - start,
            "batch_hash": f"{result.batch_hash:016x}",
        }
        for hook in hooks:
            hook(state, row)
        if config.exit_interval and state.step % config.exit_interval == 0:
            return


def _where(state: TrainState, samples: int, error: Exception) -> str:
    first = state.consumed_samples
    return (
        f"{error} at step {state.step + 1} (samples {first} to {first + samples - 1}); no "
        f"checkpoint holds it. Lower optimizer.lr, check the data of "
        f"these samples, or restart from an older checkpoint"
    )
