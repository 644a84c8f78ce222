"""Rehearses a run: every distinct rank built and stepped without memory, every rank's part of a
checkpoint, and the rules that span ranks."""

import multiprocessing
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Optional

from megatron_biollm.config import UserError
from megatron_biollm.log import Progress, get_logger
from megatron_biollm.model.flops import num_parameters
from megatron_biollm.planner.candidate import Candidate, Work
from megatron_biollm.planner.hardware import Gpu, load_gpu
from megatron_biollm.planner.memory import StageMemory, predict_memory
from megatron_biollm.recipes.run_config import RunConfig
from megatron_biollm.rehearsal import checkpoint_plan, rules
from megatron_biollm.rehearsal.rank import RankReport, RehearsedRun, rehearse_rank
from megatron_biollm.rehearsal.rules import Broken
from megatron_biollm.rehearsal.saves import RankContent, rank_content
from megatron_biollm.rehearsal.traffic import volumes
from megatron_biollm.tokenizer.tokenizer import build_tokenizer

logger = get_logger(__name__)
# Ranks whose checkpoints one task of a worker describes.
RANKS_PER_TASK = 8


@dataclass(frozen=True)
class RehearsalOptions:
    """How to rehearse.

    Attributes:
        world_size: ranks of the run.
        gpu: name in the planner's table, whose memory the run must fit; None does not check.
        gpu_table: file with GPUs of your own.
        ranks: to build and step; one of each pipeline rank if None, since the others are equal.
        processes: that share the work.
        whole: run all micro-batches of a step.
        checkpoint: describe the checkpoint of every rank.
    """

    world_size: int
    gpu: Optional[str] = None
    gpu_table: Optional[str] = None
    ranks: Optional[list[int]] = None
    processes: int = 2
    whole: bool = False
    checkpoint: bool = True

    def __post_init__(self) -> None:
        for name in ("world_size", "processes"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1")
        for rank in self.ranks or ():
            if not 0 <= rank < self.world_size:
                raise UserError(
                    f"rank {rank} is not one of the {self.world_size} ranks of the world; choose "
                    f"from 0 to {self.world_size - 1}"
                )


def rehearse(config: RunConfig, options: RehearsalOptions) -> dict[str, Any]:
    """Plays the ranks of a run and compares them.

    Returns:
        The report: `ranks`, `collectives`, `checkpoint`, `broken` (rules, with rank and remedy).

    Raises:
        UserError: the configuration is refused, or a rank cannot be built or stepped.
    """
    config.check_world(options.world_size)
    gpu = load_gpu(options.gpu, options.gpu_table) if options.gpu else None
    _find_vocabulary(config)
    run = _rehearsed(config, options.world_size)
    ranks = options.ranks or distinct_ranks(run)
    if config.data.reset_attention_mask:
        logger.info("data.reset_attention_mask: rehearsed as if documents saw each other")
    if config.training.fp8 is not None:
        logger.warning(
            "training.fp8: rehearsed in bf16, which holds more of each layer's activations, but "
            "not the FP8 copies of its weights (2 bytes each); tools/plan.py counts both"
        )
    start = time.perf_counter()
    reports, contents = _play(run, ranks, options)
    predicted = _predicted(run)
    broken = list(_check(run, reports, gpu, predicted))
    report = {
        "layout": run.parallel.describe(run.parallel.data_parallel_size(run.world_size)),
        "world_size": run.world_size,
        "parameters": num_parameters(run.model),
        "layers": "Transformer Engine's, rehearsed" if run.on_gpu else "local, on the CPU",
        "microbatches": {"rehearsed": reports[0].microbatches[0], "step": run.num_microbatches},
        "ranks": [_rank_row(one, predicted) for one in reports],
        "collectives": _collectives(reports),
    }
    if options.checkpoint:
        report["checkpoint"], problems = _checkpoint(config, run, contents)
        broken += problems
    report["gpu"] = None if gpu is None else {"name": gpu.name, "memory_bytes": gpu.memory_bytes}
    report["broken"] = [one.row(_coordinates(run, one.rank)) for one in broken]
    report["seconds"] = time.perf_counter() - start
    return report


def distinct_ranks(run: RehearsedRun) -> list[int]:
    """One rank of each pipeline rank.

    Ranks that differ in tensor, context or data parallelism alone run the same code on tensors of
    the same shapes: the degrees divide what they cut, and buffers are padded to the data-parallel
    size.
    """
    stride = run.world_size // run.parallel.pipeline_model_parallel_size
    return list(range(0, run.world_size, stride))


def _find_vocabulary(config: RunConfig) -> None:
    if config.model.vocab_size is not None:
        return
    if config.tokenizer.tokenizer_model is None:
        raise UserError(
            "the vocabulary size is unknown; give model.vocab_size=34000, say, or the run's "
            "tokenizer.tokenizer_model"
        )
    tokenizer = build_tokenizer(config.tokenizer)
    config.set_vocab_size(tokenizer.vocab_size, f"the tokenizer {tokenizer.name}")


def _rehearsed(config: RunConfig, world_size: int) -> RehearsedRun:
    return RehearsedRun(
        model=config.model,
        parallel=config.parallel,
        optimizer=config.optimizer,
        training=config.training,
        world_size=world_size,
        on_gpu=config.training.device != "cpu",
    )


def _play(
    run: RehearsedRun, ranks: list[int], options: RehearsalOptions
) -> tuple[list[RankReport], dict[int, RankContent]]:
    """Steps the ranks and describes the checkpoint of the whole world, in worker processes."""
    reports, contents = [], {}
    every = range(run.world_size) if options.checkpoint else range(0)
    blocks = [list(every[i : i + RANKS_PER_TASK]) for i in every[::RANKS_PER_TASK]]
    tasks = [(1, _step_rank, rank, options.whole) for rank in ranks]
    tasks += [(len(block), _describe_ranks, block) for block in blocks]
    with Progress(len(ranks) + len(every), "rehearsing", "rank") as progress:
        for count, result in _results(run, tasks, options.processes):
            progress.update(count)
            if isinstance(result, RankReport):
                reports.append(result)
            else:
                contents.update(result)
    return sorted(reports, key=lambda one: one.rank), contents


def _results(
    run: RehearsedRun, tasks: list[tuple], processes: int
) -> Iterator[tuple[int, RankReport | dict[int, RankContent]]]:
    """Each task's count of ranks and its result, as they come; one process works in this one."""
    if processes == 1:
        for count, function, *args in tasks:
            yield count, function(run, *args)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_quiet)
    try:
        waiting = {pool.submit(function, run, *args): n for n, function, *args in tasks}
        for task in as_completed(waiting):
            yield waiting[task], task.result()
    except BrokenProcessPool as error:
        raise UserError(
            f"one of {processes} worker processes died, most likely for want of memory (each takes "
            f"about 1 GB); lower --processes"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _quiet() -> None:
    warnings.simplefilter("ignore")


def _step_rank(run: RehearsedRun, rank: int, whole: bool) -> RankReport:
    with _named(run, rank, "built and stepped"):
        return rehearse_rank(run, rank, whole)


def _describe_ranks(run: RehearsedRun, ranks: list[int]) -> dict[int, RankContent]:
    found = {}
    for rank in ranks:
        with _named(run, rank, "described for a checkpoint"):
            found[rank] = rank_content(run, rank)
    return found


@contextmanager
def _named(run: RehearsedRun, rank: int, what: str) -> Iterator[None]:
    """Says on which rank something failed."""
    try:
        yield
    except Exception as error:
        where = rules.describe_rank(rank, _coordinates(run, rank))
        if isinstance(error, UserError):
            raise UserError(f"{where}: {error}") from error
        raise UserError(
            f"{where} cannot be {what}: {type(error).__name__}: {error}. Rule: every rank builds "
            f"and steps as it would on the cluster. Remedy: change the option that the message "
            f"names (parallel.*, model.*); it is torch's or megatron-core's, which the run would "
            f"meet too"
        ) from error


def _coordinates(run: RehearsedRun, rank: int) -> dict[str, int]:
    return rules.coordinates_of(run.parallel, run.world_size, rank)


def _predicted(run: RehearsedRun) -> list[StageMemory] | None:
    if not (run.on_gpu and run.training.bf16):
        return None  # the planner knows bf16 runs on GPUs
    sharding = "optimizer" if run.parallel.use_distributed_optimizer else "none"
    replicas = run.parallel.data_parallel_size(run.world_size)
    work = Work(run.model, run.training.global_batch_size)
    candidate = Candidate(run.parallel, run.training.micro_batch_size, replicas, sharding)
    return predict_memory(work, candidate)


def _check(
    run: RehearsedRun,
    reports: list[RankReport],
    gpu: Gpu | None,
    predicted: list[StageMemory] | None,
) -> Iterator[Broken]:
    for report in reports:
        yield from rules.check_members(report, run.parallel, run.world_size)
        if gpu is not None and predicted is not None:
            stage = predicted[report.coordinates["pp"]]
            outside = stage.communication + stage.reserve
            yield from rules.check_memory(report, outside, gpu.memory_bytes, gpu.name)
    yield from rules.check_order(reports)
    yield from rules.check_pipeline(reports)


def _rank_row(report: RankReport, predicted: list[StageMemory] | None) -> dict[str, Any]:
    stage = predicted[report.coordinates["pp"]] if predicted else None
    return {
        "rank": report.rank,
        "coordinates": report.coordinates,
        "parameters": report.parameters,
        "peak": report.peak.row(),
        "build_peak_bytes": report.build_peak.total,
        "resident_bytes": report.resident,
        "steady": report.steady,
        "planner_bytes": None if stage is None else stage.tensors,
        "outside_bytes": None if stage is None else stage.communication + stage.reserve,
        "flops": report.flops,
        "cpu_seconds": report.seconds,
    }


def _collectives(reports: list[RankReport]) -> list[dict[str, Any]]:
    """Calls and bytes of a step by pipeline rank, group and operation; groups of one left out."""
    rows = []
    for report in reports:
        sizes = {name: len(ranks) for name, ranks in report.members.items()}
        for (group, operation), volume in volumes(report.totals, sizes).items():
            if sizes[group] > 1:
                rows.append(
                    {
                        "rank": report.rank,
                        "group": group,
                        "size": sizes[group],
                        "operation": operation,
                        "calls": volume.calls,
                        "bytes": volume.bytes,
                        "sent_bytes": volume.sent,
                    }
                )
    return rows


def _checkpoint(
    config: RunConfig, run: RehearsedRun, contents: dict[int, RankContent]
) -> tuple[dict[str, Any], list[Broken]]:
    """Sizes of both formats, and what is wrong with them."""
    groups = _replica_groups(run)
    shapes = {rank: one.shapes for rank, one in contents.items()}
    found, broken = {}, list(rules.check_shapes(shapes, run.parallel, run.world_size))
    for name in contents[0].shards:
        own = {rank: contents[rank].shards[name] for rank in sorted(contents)}
        broken += checkpoint_plan.check_whole(own)
        share = config.checkpoint.fully_parallel_save
        written = checkpoint_plan.bytes_written(own, groups, share)
        found[name] = {
            "bytes": sum(written.values()),
            "largest_rank_bytes": max(written.values()),
            "smallest_rank_bytes": min(written.values()),
            "by_rank": [written[rank] for rank in sorted(written)],
            "tensors": len({shard.key for rank in own.values() for shard in rank}),
        }
    return found, broken


def _replica_groups(run: RehearsedRun) -> list[list[int]]:
    """Data- and context-parallel groups, in core's order."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for rank in range(run.world_size):
        place = _coordinates(run, rank)
        groups[(place["tp"], place["pp"])].append(rank)
    return list(groups.values())
