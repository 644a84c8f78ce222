"""A training run from its start to its end, in any layout, on CPU or CUDA, whatever the task."""

import contextlib
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Optional

import torch

from megatron_biollm.checkpoint.sharded import Checkpointer
from megatron_biollm.config import UserError, dump_config
from megatron_biollm.data.jumps import JumpingStream, merge_ranges
from megatron_biollm.data.stream import Datasets
from megatron_biollm.device.runtime import Device, seed_everything, select_device
from megatron_biollm.log import close_logging, get_logger, setup_logging
from megatron_biollm.model.gpt import Head
from megatron_biollm.model.lora_config import LoraConfig
from megatron_biollm.parallel.parallelize import ParallelModel, parallelize
from megatron_biollm.parallel.process_groups import (
    control_group,
    create_process_groups,
    destroy_process_groups,
)
from megatron_biollm.recipes.build_hooks import benchmarks_to_score, build_hooks
from megatron_biollm.recipes.hooks import finish_validation, timed
from megatron_biollm.recipes.incidents import (
    IncidentLog,
    is_abandoned,
    jumped_samples,
    rewinds,
)
from megatron_biollm.recipes.run import Run
from megatron_biollm.recipes.run_config import RunConfig
from megatron_biollm.recipes.sidecars import versions
from megatron_biollm.recipes.startup import Startup
from megatron_biollm.recipes.supervision import saved_at_the_end, supervised
from megatron_biollm.recipes.task import Task
from megatron_biollm.training.loop import train
from megatron_biollm.training.optimizer import (
    build_optimizer,
    build_scheduler,
    group_step_adam,
    take_hyperparameters,
)
from megatron_biollm.training.signals import StopSignals
from megatron_biollm.training.stability import Guard, Rewind, Unstable
from megatron_biollm.training.state import TrainState
from megatron_biollm.training.step import Trainer

logger = get_logger(__name__)


def run_task(config: RunConfig, task: Task, signals: Optional[StopSignals] = None) -> TrainState:
    """Trains, from the newest good checkpoint of `run_dir` if there is one.

    Asked to stop (SIGUSR1, SIGTERM, SIGINT, or the file `run_dir/stop`) it saves and returns.

    Args:
        config: of the run; a `RunConfig`, or a recipe's own with the same sections.
        task: which data, which objective, which rules.
        signals: noted since the process has started; None notes them from now on.

    Returns:
        How far the run has come.

    Raises:
        UserError: anything in the configuration, the data or a checkpoint that a user can mend.
    """
    startup = Startup(config.run_path)
    device = select_device(config.training.device)
    config.check_world(int(os.environ.get("WORLD_SIZE", 1)))
    task.check_inputs(config)
    benchmarks_to_score(config)  # what is wrong with them is told before the model is built
    tokenizer, manifest = task.load_tokenizer(config)
    startup.done("tokenizer")
    device.keep_freed_memory()
    with (
        contextlib.nullcontext(signals) if signals else StopSignals() as signals,
        device.core_context(),
        group_step_adam(),
        distributed(config, device) as control,
        supervised(config, signals, control) as watch,
    ):
        startup.done("process group")
        run = Run(config, device, control, tokenizer, manifest, watch, startup)
        datasets = task.open_data(run)
        startup.done("data")
        model = build_model(run, task.head(config), task.lora(config))
        startup.done("model")
        trainer, checkpointer = build_trainer(run, model, task)
        startup.done("optimizer")
        has_weights = task.prepare(run, trainer, checkpointer, datasets)
        incidents = IncidentLog(config.run_path, datasets.train, checkpointer.store.ranks.on_first)
        while not train_on(run, trainer, checkpointer, datasets, incidents, has_weights):
            has_weights = False  # again after a rewind
    return watch.status.state


def train_on(
    run: Run,
    trainer: Trainer,
    checkpointer: Checkpointer,
    datasets: Datasets,
    incidents: IncidentLog,
    has_weights: bool,
) -> bool:
    """Trains from the newest good checkpoint to the end, and saves.

    Args:
        has_weights: the model has those of `checkpoint.load` already.

    Returns:
        Whether it came there; else the run must go back and begin again.

    Raises:
        UserError: a step is not healthy, and the policy is to stop.
        StopTraining: the run was asked to stop, and has saved.
    """
    config, watch = run.config, run.watch
    state, rewound = restore(run, checkpointer, trainer, incidents, has_weights)
    hooks, close = build_hooks(run, trainer, checkpointer, datasets, state)
    stream = JumpingStream(datasets.train, state.jumped_samples)
    batches = run.batches(trainer.model, stream, state.consumed_samples)
    run.startup.done("checkpoint and logs")
    guard = Guard(config.stability, incidents.record, checkpointer.newest_good_before, rewound)
    try:
        with contextlib.closing(close), saved_at_the_end(checkpointer, state, watch.phases):
            finish_validation(hooks, close, state, watch.interrupt)
            train(trainer, state, config.training, batches, hooks, guard)
    except Rewind:
        return False
    except Unstable as error:
        checkpointer.settle()
        raise UserError(str(error)) from error
    return True


@contextlib.contextmanager
def distributed(config: RunConfig, device: Device) -> Iterator[torch.distributed.ProcessGroup]:
    """Joins the world, opens the run folder and the logs; leaves and closes them at the end."""
    timeout = config.parallel.distributed_timeout_minutes
    _make_run_folder(config.run_path)
    device.init_distributed(timeout)
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    setup_logging(rank, world, config.run_path / "logs")
    seed_everything(config.training.seed)
    try:
        if rank == 0:
            _atomic_text(config.run_path / "config.yaml", dump_config(config))
            _atomic_text(config.run_path / "versions.json", json.dumps(versions(), indent=1))
        yield control_group(timeout)
    finally:
        destroy_process_groups()
        close_logging()


def build_model(
    run: Run, head: Optional[Head] = None, lora: Optional[LoraConfig] = None
) -> ParallelModel:
    """Makes the process groups and this rank's model chunks."""
    config = run.config
    groups = create_process_groups(config.parallel)
    with timed("built the model"), run.watch.phases("model", slow=True):
        model = parallelize(
            config.model,
            config.parallel,
            run.device,
            groups,
            bf16=config.training.bf16,
            seed=config.training.seed,
            head=head,
            lora=lora,
            fp8=config.training.fp8_products,
        )
    logger.info(
        "device %s (%s); layers %s (%s); %s",
        run.device.kind,
        run.device.reason,
        *model.transformer_impl,
        config.parallel.describe(groups.dp.size()),
    )
    kernels = run.device.kernels(model.transformer_impl[0])
    if config.training.fp8 is not None:
        kernels["layers' products"] = f"FP8 {config.training.fp8}, {config.training.fp8_recipe}"
    logger.info("kernels: %s", "; ".join(f"{job} {name}" for job, name in kernels.items()))
    run.watch.interrupt.poll()
    return model


def build_trainer(run: Run, model: ParallelModel, task: Task) -> tuple[Trainer, Checkpointer]:
    """The step and the checkpoints over one model."""
    config = run.config
    optimizer = build_optimizer(model, config.optimizer, config.parallel.use_distributed_optimizer)
    scheduler = build_scheduler(optimizer, config.optimizer, config.training.train_iters)
    trainer = Trainer(
        model,
        optimizer,
        scheduler,
        config.model.seq_length,
        config.training.micro_batch_size,
        packed=task.packed(config),
        phases=run.watch.phases,
        objective=task.objective(run),
    )
    checkpointer = Checkpointer(
        config.checkpoints,
        config.checkpoint,
        model,
        optimizer,
        run.control,
        write_sidecars=partial(task.write_sidecars, run),
        check_sidecars=partial(task.check_sidecars, run),
        train_iters=config.training.train_iters,
        new_weights=task.new_weights,
    )
    return trainer, checkpointer


def restore(
    run: Run,
    checkpointer: Checkpointer,
    trainer: Trainer,
    incidents: IncidentLog,
    has_weights: bool,
) -> tuple[TrainState, int]:
    """Goes on from the run's newest good checkpoint, else from `checkpoint.load`, else from 0.

    A rewind is finished here: the checkpoints that it went back over go, and what it jumps over is
    in the state.

    Returns:
        The state, and how often the run has rewound.
    """
    options, rows = run.config.checkpoint, incidents.rows()
    with run.watch.phases("restore", slow=True):
        checkpointer.store.discard(partial(is_abandoned, rows=rows))
        state = checkpointer.load_newest()
        if state is None and options.load is not None and not has_weights:
            state = checkpointer.load_from(Path(options.load), options.load_optimizer)
    state = state or TrainState()
    state.jumped_samples = merge_ranges(state.jumped_samples + jumped_samples(rows))
    incidents.start_after(state.step)
    take_hyperparameters(trainer.optimizer, run.config.optimizer)
    # The schedule is a function of the step alone.
    trainer.scheduler.step(state.step - trainer.scheduler.num_steps)
    logger.info("starting after step %d (%d samples)", state.step, state.consumed_samples)
    run.watch.begin(state, checkpointer)
    return state, len(rewinds(rows))


def _make_run_folder(path: Path) -> None:
    try:
        (path / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"run_dir={path} cannot be made ({error.strerror}); give a folder you may write to"
        ) from error


def _atomic_text(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)
