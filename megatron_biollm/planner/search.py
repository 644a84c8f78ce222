"""Every way to lay a run over a number of GPUs: those that fit, ranked, and why others do not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Optional, Protocol

from megatron_biollm.config import UserError
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.parallel.layout import ParallelConfig, check_model_fits_layout
from megatron_biollm.planner.candidate import Candidate, Work
from megatron_biollm.planner.hardware import Gpu
from megatron_biollm.planner.memory import GIB, StageMemory, predict_stage

# Larger micro-batches fill no GPU better, at the widths that need a plan.
MICRO_BATCH_SIZES = (1, 2, 4, 8, 16)
RECOMPUTATIONS = {
    "none": {},
    "core_attn": {"recompute_granularity": "selective", "recompute_modules": ["core_attn"]},
    "mlp": {"recompute_granularity": "selective", "recompute_modules": ["mlp"]},
    "full": {
        "recompute_granularity": "full",
        "recompute_method": "uniform",
        "recompute_num_layers": 1,
    },
}
SHARDINGS = ("optimizer", "none")
# Of the GPU's memory, kept free: the model of the memory may be that much off.
MEMORY_MARGIN = 0.05


class Speed(Protocol):
    """What ranks layouts."""

    @property
    def tokens_per_second_per_gpu(self) -> float: ...


# Raises a UserError where a run could not start in this layout with this micro-batch size.
Check = Callable[[ParallelConfig, int], None]


@dataclass(frozen=True)
class Layout:
    """A layout that a run could take, with what it needs and how fast it is.

    Attributes:
        candidate: the layout.
        peak: memory of the fullest GPU.
        peak_rank: its pipeline rank.
        step: predicted time of a step; None where a search left it out, since it does not fit.
        refusal: why it does not fit the memory; None if it does.
    """

    candidate: Candidate
    peak: StageMemory
    peak_rank: int
    step: Optional[Speed]
    refusal: Optional[str] = None


@dataclass(frozen=True)
class Refused:
    """A layout that no run could start in, or a set of them that differ in what is not named.

    Attributes:
        parallel: its degrees.
        micro_batch_size: None where the degrees alone are refused.
        reason: value, rule and remedy.
    """

    parallel: ParallelConfig
    micro_batch_size: Optional[int]
    reason: str


@dataclass
class Search:
    """Attributes:
    fitting: layouts that fit, the fastest first.
    too_large: layouts that break no rule and do not fit the memory.
    refused: layouts that break a rule.
    """

    fitting: list[Layout] = field(default_factory=list)
    too_large: list[Layout] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


@dataclass(frozen=True)
class Question:
    """What is asked of a search.

    Attributes:
        work: what is to be done.
        world_size: GPUs.
        gpu: their kind.
        check: the run's own rules.
        predict: time of a step in a layout.
        memory_margin: part of the GPU's memory to keep free.
        micro_batch_sizes: to try.
    """

    work: Work
    world_size: int
    gpu: Gpu
    check: Check
    predict: Callable[[Candidate], Speed]
    memory_margin: float = MEMORY_MARGIN
    micro_batch_sizes: tuple[int, ...] = MICRO_BATCH_SIZES

    @property
    def memory_limit(self) -> float:
        """Bytes that a layout may need on each GPU."""
        return self.gpu.memory_bytes * (1 - self.memory_margin)


def search(question: Question) -> Search:
    """Tries every layout. Equally fast ones stay in the order of enumeration."""
    found = Search()
    for outcome in outcomes(question):
        if isinstance(outcome, Refused):
            found.refused.append(outcome)
        elif outcome.refusal is None:
            found.fitting.append(outcome)
        else:
            found.too_large.append(outcome)
    found.fitting.sort(key=lambda layout: -layout.step.tokens_per_second_per_gpu)
    return found


def outcomes(question: Question) -> Iterator[Layout | Refused]:
    """What became of every layout, in a fixed order."""
    for parallel in degrees(question.work.model, question.world_size):
        try:
            check_model_fits_layout(question.work.model, parallel)
        except UserError as error:
            yield Refused(parallel, None, str(error))
            continue
        for micro_batch_size in question.micro_batch_sizes:
            yield from _of_degrees(question, parallel, micro_batch_size)


def degrees(model: ModelConfig, world_size: int) -> Iterator[ParallelConfig]:
    """TP x CP x PP that divide the world, whether the model fits them or not. Sequence parallelism
    comes with TP: it moves no more bytes and holds fewer."""
    sizes = [n for n in range(1, world_size + 1) if world_size % n == 0]
    for tp in sizes:
        for cp in sizes:
            for pp in sizes:
                if world_size % (tp * cp * pp) == 0:
                    yield ParallelConfig(
                        tensor_model_parallel_size=tp,
                        context_parallel_size=cp,
                        pipeline_model_parallel_size=pp,
                        sequence_parallel=tp > 1,
                        overlap_grad_reduce=True,
                        overlap_param_gather=True,
                    )


def assess(question: Question, candidate: Candidate, time_all: bool = True) -> Layout:
    """Memory and speed of one layout that breaks no rule.

    time_all: predict the speed of one that does not fit, too.
    """
    rank, peak = peak_stage(question.work, candidate)
    fits = peak.total <= question.memory_limit
    refusal = None if fits else memory_refusal(question, candidate, rank, peak)
    step = question.predict(candidate) if fits or time_all else None
    return Layout(candidate, peak, rank, step, refusal)


def peak_stage(work: Work, candidate: Candidate) -> tuple[int, StageMemory]:
    """The fullest pipeline rank. It is the first, which has most in flight, or the last, which has
    the loss: those between hold less of the one and nothing of the other."""
    last = candidate.parallel.pipeline_model_parallel_size - 1
    stages = [(rank, predict_stage(work, candidate, rank)) for rank in sorted({0, last})]
    return max(stages, key=lambda stage: stage[1].total)


def memory_refusal(question: Question, candidate: Candidate, rank: int, peak: StageMemory) -> str:
    """Which rank needs how much, for what, and what would help."""
    part, size = max(peak.parts.items(), key=lambda item: item[1])
    return (
        f"pipeline rank {rank} needs {peak.total / GIB:.1f} GiB of the "
        f"{question.gpu.memory_bytes / GIB:.1f} GiB of {question.gpu.name} "
        f"({question.memory_margin:.0%} is kept free), most of it for {part} "
        f"({size / GIB:.1f} GiB); {_remedy(part, candidate)}"
    )


def _of_degrees(
    question: Question, parallel: ParallelConfig, micro_batch_size: int
) -> Iterator[Layout | Refused]:
    for interleaved in _interleaved(question.work.model, parallel):
        try:
            question.check(interleaved, micro_batch_size)
        except UserError as error:
            yield Refused(interleaved, micro_batch_size, str(error))
            # What refuses the plain schedule refuses the interleaved one for the same reason.
            if interleaved.virtual_pipeline_model_parallel_size is None:
                return
            continue
        for candidate in _variants(interleaved, micro_batch_size, question.world_size):
            yield assess(question, candidate, time_all=False)


def _interleaved(model: ModelConfig, parallel: ParallelConfig) -> Iterator[ParallelConfig]:
    """The plain schedule, and interleaved ones with every number of chunks that divides a rank's
    layers."""
    yield parallel
    layers = model.num_layers // parallel.pipeline_model_parallel_size
    if parallel.pipeline_model_parallel_size == 1:
        return
    for chunks in range(2, layers + 1):
        if layers % chunks == 0:
            yield replace(
                parallel, virtual_pipeline_model_parallel_size=chunks, overlap_p2p_comm=True
            )


def _variants(
    parallel: ParallelConfig, micro_batch_size: int, world_size: int
) -> Iterator[Candidate]:
    """Each recomputation, with and without sharding where there is something to shard over."""
    replicas = parallel.data_parallel_size(world_size)
    alone = replicas * parallel.context_parallel_size == 1
    for sharding in SHARDINGS[:1] if alone else SHARDINGS:
        sharded = sharding == "optimizer"
        for recomputation in RECOMPUTATIONS.values():
            chosen: dict[str, Any] = recomputation | {
                "use_distributed_optimizer": sharded,
                "overlap_param_gather": sharded,
            }
            yield Candidate(replace(parallel, **chosen), micro_batch_size, replicas, sharding)


def _remedy(part: str, candidate: Candidate) -> str:
    parallel = candidate.parallel
    if part in ("activations", "logits"):
        if candidate.micro_batch_size > 1:
            return "take a smaller micro-batch"
        if parallel.recompute_granularity != "full":
            return "recompute more, or raise TP or CP"
        return "raise TP or CP"
    if part == "optimizer" and candidate.sharding == "none":
        return "shard the optimizer (parallel.use_distributed_optimizer=true)"
    return "raise TP or PP, or take GPUs with more memory"
