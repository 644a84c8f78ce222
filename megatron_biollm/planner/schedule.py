"""The order of forward and backward passes on each pipeline rank, as megatron-core runs them.

1F1B (Narayanan et al. 2019, PipeDream) and its interleaved form (Narayanan et al. 2021,
https://arxiv.org/abs/2104.04473). The number of warmup passes is that of core's
`pipeline_parallel/schedules.py`, get_pp_rank_microbatches, with its default group of PP
micro-batches per chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from megatron_biollm.parallel.layout import ParallelConfig

FORWARD, BACKWARD = "forward", "backward"


@dataclass(frozen=True)
class Pass:
    """One micro-batch through one model chunk.

    Attributes:
        kind: "forward" or "backward".
        microbatch: index within the step.
        chunk: model chunk of the rank.
    """

    kind: str
    microbatch: int
    chunk: int


@dataclass(frozen=True)
class Span:
    """A pass with its start and end, in the unit of the durations given."""

    what: Pass
    start: float
    end: float


def warmup_passes(parallel: ParallelConfig, rank: int, num_microbatches: int) -> int:
    """Forward passes of a pipeline rank before its first backward pass."""
    pp = parallel.pipeline_model_parallel_size
    chunks = parallel.virtual_pipeline_model_parallel_size or 1
    if chunks == 1:
        return min(pp - rank - 1, num_microbatches)
    warmup = (pp - rank - 1) * 2 + (chunks - 1) * pp
    return min(warmup, num_microbatches * chunks)


def chunks_in_flight(parallel: ParallelConfig, rank: int, num_microbatches: int) -> int:
    """Most chunk passes of a pipeline rank whose activations wait for their backward pass."""
    total = num_microbatches * (parallel.virtual_pipeline_model_parallel_size or 1)
    # In the steady state each forward pass precedes the backward pass that frees one.
    return min(warmup_passes(parallel, rank, num_microbatches) + 1, total)


def order(parallel: ParallelConfig, rank: int, num_microbatches: int) -> list[Pass]:
    """All passes of a pipeline rank in one step, in order."""
    chunks = parallel.virtual_pipeline_model_parallel_size or 1
    group = parallel.pipeline_model_parallel_size if chunks > 1 else num_microbatches
    table = [
        (microbatch, chunk)
        for first in range(0, num_microbatches, group)
        for chunk in range(chunks)
        for microbatch in range(first, min(first + group, num_microbatches))
    ]
    forward = [Pass(FORWARD, microbatch, chunk) for microbatch, chunk in table]
    backward = [Pass(BACKWARD, microbatch, chunks - 1 - chunk) for microbatch, chunk in table]
    warmup = warmup_passes(parallel, rank, num_microbatches)
    steady = zip(forward[warmup:], backward, strict=False)
    passes = forward[:warmup] + [one for pair in steady for one in pair]
    return passes + backward[len(forward) - warmup :]


def timeline(
    parallel: ParallelConfig,
    num_microbatches: int,
    forward: Sequence[float],
    backward: Sequence[float],
    transfer: float = 0.0,
) -> list[list[Span]]:
    """When each pass runs on each pipeline rank, every pass as soon as its input is there.

    Args:
        parallel: the degrees.
        num_microbatches: forward passes per step and replica.
        forward, backward: of each pipeline rank, duration of a pass through one model chunk.
        transfer: delay between the end of a pass and the start of the next stage's.
    """
    pp = parallel.pipeline_model_parallel_size
    queues = [order(parallel, rank, num_microbatches) for rank in range(pp)]
    spans: list[list[Span]] = [[] for _ in queues]
    done: dict[tuple[str, int, int], float] = {}
    last_stage = parallel.num_stages - 1
    while any(len(spans[rank]) < len(queues[rank]) for rank in range(pp)):
        for rank in range(pp):
            while len(spans[rank]) < len(queues[rank]):
                what = queues[rank][len(spans[rank])]
                stage = what.chunk * pp + rank
                ready = _ready(done, what, stage, last_stage, transfer)
                if ready is None:
                    break
                start = max(ready, spans[rank][-1].end if spans[rank] else 0.0)
                end = start + (forward if what.kind == FORWARD else backward)[rank]
                spans[rank].append(Span(what, start, end))
                done[what.kind, what.microbatch, stage] = end
    return spans


def _ready(
    done: dict[tuple[str, int, int], float],
    what: Pass,
    stage: int,
    last_stage: int,
    transfer: float,
) -> float | None:
    """When the input of a pass is there; None while the pass before it has not run."""
    if what.kind == FORWARD:
        needed = None if stage == 0 else (FORWARD, what.microbatch, stage - 1)
    elif stage == last_stage:
        needed = (FORWARD, what.microbatch, stage)
        transfer = 0.0
    else:
        needed = (BACKWARD, what.microbatch, stage + 1)
    if needed is None:
        return 0.0
    return done[needed] + transfer if needed in done else None
