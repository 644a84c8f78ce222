"""One rank's part of a run: built, stepped, its checkpoint described; what it took is reported."""

import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any
from unittest import mock

import torch
from megatron.core.pipeline_parallel import schedules
from torch.utils._python_dispatch import _disable_current_modes

from megatron_biollm.device.runtime import Device
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.parallel.parallelize import ParallelModel, parallelize
from megatron_biollm.parallel.process_groups import create_process_groups
from megatron_biollm.rehearsal.fake_world import fake_world
from megatron_biollm.rehearsal.gpu_kernels import gpu_kernels, norm_of_gradients
from megatron_biollm.rehearsal.memory import MemoryLog, PeakMemory
from megatron_biollm.rehearsal.recorder import Recorder
from megatron_biollm.rehearsal.traffic import Call, tally
from megatron_biollm.training.config import OptimizerConfig, TrainingConfig
from megatron_biollm.training.optimizer import build_optimizer, build_scheduler, group_step_adam
from megatron_biollm.training.step import Trainer

GPU = Device("cuda", "fake", torch.device("cpu"), "rehearsed")
KNOWN_GROUPS = ("tp", "pp", "cp", "dp", "dp_cp", "embd", "mp", "tp_dp_cp", "world")
# Of the peak: what the losses of some micro-batches may add to it.
BYTES_OF_LOSSES = 1e-3
CPU = Device("cpu", "fake", torch.device("cpu"), "rehearsed")


@dataclass(frozen=True)
class RehearsedRun:
    """What is rehearsed: the sections of a run's configuration, and the world it is meant for.

    Documents of a row always see each other here: where one ends is in the data, and there are
    none. FLOPs of attention are those of whole rows, the most that there can be.
    """

    model: ModelConfig
    parallel: ParallelConfig
    optimizer: OptimizerConfig
    training: TrainingConfig
    world_size: int
    on_gpu: bool = True

    @property
    def num_microbatches(self) -> int:
        """Forward passes per step and rank."""
        width = self.training.micro_batch_size * self.parallel.data_parallel_size(self.world_size)
        return self.training.global_batch_size // width

    @property
    def short(self) -> int:
        """The fewest micro-batches that the schedule takes."""
        interleaved = self.parallel.virtual_pipeline_model_parallel_size
        least = self.parallel.pipeline_model_parallel_size if interleaved else 1
        return min(least, self.num_microbatches)

    @property
    def long(self) -> int:
        """Micro-batches that fill the pipeline and then repeat its steady state, whose period is as
        many micro-batches as there are pipeline ranks."""
        size = self.parallel.pipeline_model_parallel_size
        chunks = self.parallel.virtual_pipeline_model_parallel_size or 1
        warmup = 2 * (size - 1) + (chunks - 1) * size if chunks > 1 else size - 1
        needed = max(-(-warmup // chunks) + size + size // 2, self.short + size)
        return min(-(-needed // size) * size, self.num_microbatches)


@dataclass
class RankReport:
    """What one rank did. Sizes in bytes; of a whole step unless said otherwise.

    Attributes:
        rank: global.
        coordinates: rank within tp, cp, dp and pp.
        members: global ranks of each of its process groups.
        parameters: on this rank.
        resident: weights, gradients and optimizer state between two steps, and buffers.
        peak: worst moment of a step.
        build_peak: worst moment before the first step.
        steady: memory stops growing within the rehearsed micro-batches, so that more of them do
            not raise the peak.
        flops: of a step on this rank, recomputation included, whole attention matrix.
        totals: calls and bytes of a step by (group, operation).
        calls: every collective of the longer rehearsed step.
        microbatches: that were run, out of how many.
        seconds: of the processor, that the rehearsal of it took.
    """

    rank: int
    coordinates: dict[str, int]
    members: dict[str, list[int]]
    parameters: int = 0
    resident: int = 0
    peak: PeakMemory | None = None
    build_peak: PeakMemory | None = None
    steady: bool = True
    flops: float = 0.0
    totals: dict = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    microbatches: tuple[int, int] = (0, 0)
    seconds: float = 0.0


def rehearse_rank(run: RehearsedRun, rank: int, whole: bool = False) -> RankReport:
    """Builds one rank and runs it through two steps.

    The first step is as short as the schedule allows and makes the optimizer's state, the second
    fills the pipeline. What a step of the full length does follows from the two by a straight
    line, since the steady state repeats.

    Args:
        run: the whole of it.
        rank: to play.
        whole: run every micro-batch of the second step instead.
    """
    start = time.process_time()
    with kernels(run.on_gpu), fake_world(rank, run.world_size) as recorder:
        groups = create_process_groups(run.parallel)
        report = RankReport(rank, _coordinates(groups), {})
        traffic = recorder.traffic
        traffic.name_groups(_named(groups))
        model, trainer = build(run, groups, recorder.memory)
        report.members = dict(traffic.members)
        report.parameters = sum(p.numel() for c in model.chunks for p in c.parameters())
        report.build_peak = recorder.memory.peak(0)
        _run_steps(run, trainer, recorder, report, whole)
    report.seconds = time.process_time() - start
    return report


def build(
    run: RehearsedRun,
    groups: Any,
    memory: MemoryLog | None = None,
    device: Device | None = None,
) -> tuple[ParallelModel, Trainer]:
    """The rank's chunks and what trains them, as the recipe builds them."""
    model = parallelize(
        run.model,
        run.parallel,
        device or (GPU if run.on_gpu else CPU),
        groups,
        bf16=run.training.bf16,
        seed=run.training.seed,
    )
    if memory is not None:
        _assign_model(memory, model)
    optimizer = build_optimizer(model, run.optimizer, run.parallel.use_distributed_optimizer)
    if memory is not None:
        memory.assign_rest("optimizer")
    scheduler = build_scheduler(optimizer, run.optimizer, run.training.train_iters)
    trainer = Trainer(
        model,
        optimizer,
        scheduler,
        run.model.seq_length,
        run.training.micro_batch_size,
    )
    return model, trainer


def _assign_model(memory: MemoryLog, model: ParallelModel) -> None:
    for chunk in model.chunks:
        for parameter in chunk.parameters():
            memory.assign(parameter, "weights")
        for buffer in chunk.buffers:
            memory.assign(buffer.grad_data, "gradients")


def _run_steps(
    run: RehearsedRun, trainer: Trainer, recorder: Recorder, report: RankReport, whole: bool
) -> None:
    memory, batch = recorder.memory, micro_batch(run)
    long = run.num_microbatches if whole else run.long
    with _marked_passes(memory, trainer.optimizer):
        short = _step(trainer, recorder, batch, run.short)
        state = list(_optimizer_state(trainer.optimizer))
        if not state:
            raise RuntimeError("the rehearsed step made no update, so its memory is not known")
        for tensor in state:
            memory.assign(tensor, "optimizer")
        memory.assign_rest("temporary")
        report.resident = memory.live
        first = memory.span("between")
        full = _step(trainer, recorder, batch, long)
    report.peak = memory.peak(first)
    report.steady = long == run.num_microbatches or _is_steady(memory, first)
    report.microbatches = (long, run.num_microbatches)
    report.calls = full[1]
    extend = _Line(run.short, long, run.num_microbatches)
    report.flops = extend(short[0], full[0])
    counts = tally(short[1]), tally(full[1])
    report.totals = {key: extend(counts[0][key], counts[1][key]) for key in counts[1]}


@dataclass(frozen=True)
class _Line:
    """What is counted at two lengths of a step, at the full one."""

    short: int
    long: int
    full: int

    def __call__(self, at_short: float, at_long: float) -> float:
        # More in the short step, which is the first, is what a run does once (core 0.19).
        if self.long == self.full or at_short > at_long:
            return at_long
        return at_long + (at_long - at_short) / (self.long - self.short) * (self.full - self.long)


def _step(
    trainer: Trainer, recorder: Recorder, batch: dict[str, torch.Tensor], microbatches: int
) -> tuple[int, list[Call]]:
    """FLOPs and collectives of one step."""
    flops, calls = recorder.flops, len(recorder.traffic.calls)
    recorder.memory.span("between")
    trainer.train_step(itertools.repeat(batch), microbatches)
    recorder.memory.span("between")
    return recorder.flops - flops, recorder.traffic.calls[calls:]


def micro_batch(run: RehearsedRun) -> dict[str, torch.Tensor]:
    """One micro-batch of zeros, as a data loader gives it."""
    shape = (run.training.micro_batch_size, run.model.seq_length)
    # Real tensors: they lie in the host's memory, not the GPU's.
    with _disable_current_modes():
        tokens = torch.zeros(shape, dtype=torch.int64)
        positions = torch.arange(shape[1]).expand(shape).contiguous()
        return {
            "tokens": tokens,
            "labels": tokens,
            "loss_mask": torch.ones(shape),
            "position_ids": positions,
        }


@contextlib.contextmanager
def _marked_passes(memory: MemoryLog, optimizer: Any) -> Iterator[None]:
    """Marks each forward and backward pass of core's schedules, and the optimizer's step."""
    with contextlib.ExitStack() as stack:
        for target, name, mark in (
            (schedules, "forward_step", "forward"),
            (schedules, "backward_step", "backward"),
            (type(optimizer), "step_with_ready_grads", "optimizer"),
        ):
            marked = _marked(getattr(target, name), memory, mark)
            stack.enter_context(mock.patch.object(target, name, marked))
        yield


def _marked(inner: Any, memory: MemoryLog, name: str) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        memory.span(name)
        try:
            return inner(*args, **kwargs)
        finally:
            memory.span("between")

    return call


def _is_steady(memory: MemoryLog, first: int) -> bool:
    """Whether memory no longer grows in the second half of the steady state, which is what lies
    between the first backward pass and the last forward pass; but for the loss of each micro-batch,
    a few bytes."""
    names = [name for name, _ in memory.spans]
    start = names.index("backward", first)
    stop = len(names) - names[::-1].index("forward")
    middle = (start + stop) // 2
    earlier, later = memory.peak(first, middle).total, memory.peak(middle, stop).total
    return later <= earlier * (1 + BYTES_OF_LOSSES)


def _optimizer_state(optimizer: Any) -> Iterator[torch.Tensor]:
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        for state in part.optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, torch.Tensor))


@contextlib.contextmanager
def kernels(on_gpu: bool) -> Iterator[None]:
    """What the layers of a rehearsal run on: those of a GPU, or this machine's own."""
    if on_gpu:
        with gpu_kernels():
            yield
        return
    with CPU.core_context(), group_step_adam(), norm_of_gradients():
        yield


def _named(groups: Any) -> Iterator[tuple[str, torch.distributed.ProcessGroup]]:
    """The groups by the names that people know; any other one by that of its ranks."""
    names: dict[tuple[int, ...], str] = {}
    rest = [one.name for one in fields(groups) if one.name not in KNOWN_GROUPS]
    for name in (*KNOWN_GROUPS, *rest):
        group = getattr(groups, name, None)
        if name == "world":
            group = torch.distributed.group.WORLD
        if not isinstance(group, torch.distributed.ProcessGroup):
            continue
        ranks = tuple(torch.distributed.get_process_group_ranks(group))
        same = names.setdefault(ranks, name)
        yield name if name in KNOWN_GROUPS else same, group


def _coordinates(groups: Any) -> dict[str, int]:
    return {name: getattr(groups, name).rank() for name in ("tp", "cp", "dp", "pp")}
