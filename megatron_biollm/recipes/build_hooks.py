"""Which hooks a training run has, in their order."""

from functools import partial
from typing import TYPE_CHECKING

import torch

from megatron_biollm.checkpoint.sharded import Checkpointer
from megatron_biollm.data.stream import Datasets
from megatron_biollm.log import MetricsLogger, get_logger
from megatron_biollm.model.flops import describe_flops, flops_per_token
from megatron_biollm.recipes.hooks import LogMetrics, Profile, SaveOrStop, Validate
from megatron_biollm.recipes.run import Run
from megatron_biollm.recipes.run_config import RunConfig
from megatron_biollm.training.loop import Hook
from megatron_biollm.training.state import TrainState
from megatron_biollm.training.step import Trainer
from megatron_biollm.training.stragglers import StragglerReport
from megatron_biollm.training.throughput import Throughput

if TYPE_CHECKING:
    from megatron_biollm.evaluation.plan import Prepared

logger = get_logger(__name__)


def build_hooks(
    run: Run,
    trainer: Trainer,
    checkpointer: Checkpointer,
    datasets: Datasets,
    state: TrainState,
) -> tuple[list[Hook], MetricsLogger]:
    """What happens after each step, in order, and the metrics to close at the end."""
    config, training = run.config, run.config.training
    metrics = MetricsLogger(
        config.run_path, config.logging, state.step, torch.distributed.get_rank()
    )
    log = LogMetrics(
        metrics,
        partial(_throughput, run),
        run.device,
        config.logging.log_interval,
        training.train_iters,
        config.parallel.describe(trainer.model.groups.dp.size()),
    )
    log.start_from(state)
    hooks: list[Hook] = [run.startup]
    if config.watch.straggler_interval:
        stage = trainer.model.groups.pp.rank()
        hooks.append(
            StragglerReport(
                config.run_path, run.watch.phases, run.device, stage, run.control, config.watch
            )
        )
    if training.eval_interval and datasets.valid is not None:
        valid = partial(run.batches, trainer.model, datasets.valid, 0, num_workers=0)
        hooks.append(Validate(trainer, training, valid, run.watch.interrupt))
    scored = benchmarks_to_score(config)
    if scored:
        from megatron_biollm.recipes.evaluation_hook import ScoreBenchmarks

        hooks.append(ScoreBenchmarks(run, trainer.model, scored))
    hooks.append(log)
    profiled = training.profile_step_start is not None
    if profiled and torch.distributed.get_rank() in training.profile_ranks:
        hooks.append(Profile(training, config.run_path / "logs", run.device))
    hooks.append(SaveOrStop(checkpointer, config.checkpoint, training.train_iters, run.watch))
    return hooks, metrics


def benchmarks_to_score(config: RunConfig) -> "list[Prepared]":
    """The benchmarks of a run's section `evaluation`, read; none where it scores none.

    Raises:
        UserError: files that are missing or wrong, or lm-eval is not installed.
    """
    if not config.evaluation.interval:
        return []
    # Every reader of every benchmark, which other runs do not wait for.
    from megatron_biollm.recipes.evaluation_hook import prepare_benchmarks

    return prepare_benchmarks(config)


def _throughput(run: Run) -> Throughput:
    config = run.config
    peak, source = config.logging.peak_tflops, "logging.peak_tflops"
    if peak is None:
        peak, source = run.device.peak_tflops(config.training.bf16)
    throughput = Throughput(
        flops_per_token(config.model), torch.distributed.get_world_size(), peak, source
    )
    logger.info("%s", describe_flops(config.model))
    logger.info("%s", throughput.describe())
    return throughput
