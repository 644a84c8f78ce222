"""What happens after a step: log, validate, save, profile."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Optional

import torch

from megatron_biollm.checkpoint.commit import SaveFailed
from megatron_biollm.checkpoint.config import CheckpointConfig
from megatron_biollm.checkpoint.sharded import Checkpointer
from megatron_biollm.device.runtime import Device
from megatron_biollm.log import MetricsLogger, get_logger
from megatron_biollm.recipes.supervision import Supervision
from megatron_biollm.training.config import TrainingConfig
from megatron_biollm.training.interrupt import Interrupt, StopTraining
from megatron_biollm.training.loop import Hook
from megatron_biollm.training.state import TrainState
from megatron_biollm.training.step import Batch, Trainer
from megatron_biollm.training.throughput import Throughput

Row = dict[str, Any]
SCORES = "evaluation/"  # before a benchmark's name in a row
logger = get_logger(__name__)


class LogMetrics:
    """Writes a row and a line every `interval` steps, with speed averaged over them.

    `throughput` is asked for after the first step: finding the peak of a CPU takes a while.
    """

    def __init__(
        self,
        metrics: MetricsLogger,
        throughput: Callable[[], Throughput],
        device: Device,
        interval: int,
        last_step: int,
        layout: str,
    ) -> None:
        self.metrics, self.device = metrics, device
        self.throughput = functools.cache(throughput)
        self.interval, self.last_step, self.layout = interval, last_step, layout
        self.tokens_before: Optional[int] = None
        self.tokens, self.seconds, self.steps = 0.0, 0.0, 0

    def __call__(self, state: TrainState, row: Row) -> None:
        # What was left out as padding was not computed.
        tokens = state.consumed_tokens - (self.tokens_before or 0)
        self.tokens += tokens * row.get("computed_share", 1.0)
        self.tokens_before = state.consumed_tokens
        self.seconds += row["step_time_s"]
        self.steps += 1
        if state.step % self.interval and state.step != self.last_step and not _is_special(row):
            return
        row |= self.throughput().row(
            round(self.tokens), self.seconds, self.steps, self.device.peak_memory_bytes()
        )
        self.metrics.log({**row, "layout": self.layout})
        logger.info(_line(row, self.last_step))
        self.start_from(state)

    def start_from(self, state: TrainState) -> None:
        """Begins a new interval after `state`."""
        self.tokens_before = state.consumed_tokens
        self.tokens, self.seconds, self.steps = 0.0, 0.0, 0


class Validate:
    """Adds `validation_loss` every `eval_interval` steps, always over the same samples.

    A request to stop is obeyed between two batches. The row then has no loss yet, and the next
    start adds it (`finish_validation`).
    """

    def __init__(
        self,
        trainer: Trainer,
        config: TrainingConfig,
        batches: Callable[[], Iterator[Batch]],
        interrupt: Interrupt,
    ) -> None:
        self.trainer, self.config, self.batches = trainer, config, batches
        self.interrupt = interrupt

    def __call__(self, state: TrainState, row: Row) -> None:
        last = state.step == self.config.train_iters
        if state.step % self.config.eval_interval and not last:
            return
        row["validation_loss"] = None
        with contextlib.suppress(StopTraining):  # every later poll raises it again
            row.update(self.measure())

    def measure(self) -> dict[str, float]:
        """`validation_loss`, and every metric of the objective with `validation_` before its name,
        over `eval_iters` global batches.

        Raises:
            StopTraining: the run was asked to stop meanwhile.
        """
        config, trainer = self.config, self.trainer
        per_rank = config.global_batch_size // (
            config.micro_batch_size * trainer.model.groups.dp.size()
        )
        loss, metrics = trainer.evaluate(
            self.batches(), per_rank, config.eval_iters, self.interrupt.poll
        )
        return {f"validation_{name}": value for name, value in {"loss": loss, **metrics}.items()}


def finish_validation(
    hooks: Sequence[Hook], metrics: MetricsLogger, state: TrainState, interrupt: Interrupt
) -> None:
    """Makes up for the validation that a stop cut short, and completes the row of its step.

    Raises:
        StopTraining: the run was asked to stop meanwhile.
    """
    lacks = torch.tensor(int(metrics.lacks(state.step, "validation_loss")))
    torch.distributed.broadcast(lacks, src=0, group=interrupt.control)
    for validate in (hook for hook in hooks if lacks and isinstance(hook, Validate)):
        with timed(f"validation of step {state.step}, which a stop had cut short"):
            metrics.complete(state.step, validate.measure())


class SaveOrStop:
    """Saves for any layout and for this one, each at its interval, and when asked to; stops when
    asked to.

    Also moves a background save on after every step, and tells of what was committed.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        config: CheckpointConfig,
        last_step: int,
        watch: Supervision,
    ) -> None:
        self.checkpointer, self.config, self.last_step = checkpointer, config, last_step
        self.watch = watch

    def __call__(self, state: TrainState, row: Row) -> None:
        watch = self.watch
        # Every step while a save is in the background, and quick: a rank that hangs is missed here.
        with watch.phases("checkpoint"):
            self._survive(self.checkpointer.poll)
        # After the last step there is nothing left to stop, unless its validation was cut short.
        if state.step < self.last_step or row.get("validation_loss", 0.0) is None:
            watch.interrupt.poll()
        with watch.phases("checkpoint", slow=True):
            self._save_if_due(state)
        watch.status.committed()

    def _save_if_due(self, state: TrainState) -> None:
        interval, fast_interval = self.config.save_interval, self.config.fast_save_interval
        if self.watch.interrupt.take_save() or (interval and state.step % interval == 0):
            self._survive(self.checkpointer.save, state)
        elif fast_interval and state.step % fast_interval == 0:
            self._survive(self.checkpointer.save, state, reshardable=False)

    def _survive(self, act: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """What failed on every rank ends the run only if the config wants it so."""
        try:
            act(*args, **kwargs)
        except SaveFailed as error:
            if self.config.on_save_failure == "stop":
                raise
            logger.error(
                "%s. Going on without it (checkpoint.on_save_failure=continue) until the next "
                "interval",
                error,
            )


class Profile:
    """Torch profiler over chosen steps, one trace per chosen rank in `logs/`."""

    def __init__(self, config: TrainingConfig, folder: Path, device: Device) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        if device.kind == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self.first, self.last = config.profile_step_start, config.profile_step_end
        self.path = folder / f"trace_rank_{torch.distributed.get_rank():05d}.json"
        self.profiler = torch.profiler.profile(activities=activities)
        self.running = False

    def __call__(self, state: TrainState, row: Row) -> None:
        if state.step == self.first - 1:
            self.profiler.start()
            self.running = True
        # A run that is resumed after the first of the steps has nothing to write.
        if state.step == self.last and self.running:
            self.profiler.stop()
            self.profiler.export_chrome_trace(str(self.path))
            logger.info("profile of steps %d to %d: %s", self.first, self.last, self.path)


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    """Logs how long the block took."""
    start = time.perf_counter()
    yield
    logger.info("%s: %.1f s", what, time.perf_counter() - start)


def _is_special(row: Row) -> bool:
    """Whether a step was validated, scored or skipped: then nothing of it may be lost."""
    scored = any(name.startswith(SCORES) for name in row)
    return scored or "validation_loss" in row or "skipped" in row


def _line(row: Row, last_step: int) -> str:
    """One console line per logged step."""
    left = timedelta(seconds=round(row["step_time_s"] * (last_step - row["step"])))
    validation = row.get("validation_loss")
    parts = [
        f"step {row['step']}/{last_step}",
        f"loss {row['loss']:.4f}",
        f"validation {validation:.4f}" if validation is not None else "",
        f"lr {row['learning_rate']:.2e}",
        f"grad norm {row['grad_norm']:.3f}",
        f"{row['tokens_per_second']:,.0f} tokens/s",
        f"{row['tflops_per_device']:.3g} TFLOP/s",
        f"MFU {row['mfu']:.1%}" if row["mfu"] is not None else "",
        f"{row['peak_memory_gb']:.2f} GB",
        f"ETA {left}",
    ]
    return " | ".join(part for part in parts if part)
