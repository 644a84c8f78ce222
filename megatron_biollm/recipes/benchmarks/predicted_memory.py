"""Peak memory of a GPU as the planner and the rehearsal foresee it, beside what was measured.

The rehearsal runs in a process of its own: it answers for CUDA, which this one may be using.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Optional

from megatron_biollm.log import get_logger
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.planner.candidate import Candidate, Work
from megatron_biollm.planner.memory import predict_memory
from megatron_biollm.recipes.benchmarks.sides import reason_of
from megatron_biollm.rehearsal.rank import RehearsedRun, rehearse_rank
from megatron_biollm.training.config import OptimizerConfig, TrainingConfig

logger = get_logger(__name__)


@dataclass(frozen=True)
class Prediction:
    """Bytes that torch allocates at the worst moment of a step, without CUDA's context.

    Attributes:
        rehearsal: of the rehearsed step; None where it failed.
        planner: by the planner's arithmetic; None where it knows no such run.
        reason: why one is None.
    """

    rehearsal: Optional[int] = None
    planner: Optional[int] = None
    reason: str = ""

    def row(self, measured: Optional[int]) -> dict[str, Any]:
        """For a report: both, and how far each lies from what was measured (0.1: 10 % above)."""
        found: dict[str, Any] = {
            "rehearsed_memory_bytes": self.rehearsal,
            "planned_memory_bytes": self.planner,
            "prediction_reason": self.reason,
        }
        for name, value in (("rehearsal", self.rehearsal), ("planner", self.planner)):
            known = value is not None and measured
            found[f"{name}_error"] = value / measured - 1 if known else None
        return found


def predict_training(
    model: ModelConfig,
    parallel: ParallelConfig,
    micro_batch_size: int,
    num_microbatches: int,
    world_size: int,
) -> Prediction:
    """A bf16 training step on GPUs, rank 0; `num_microbatches` are those of all ranks together."""
    batch = micro_batch_size * num_microbatches
    training = TrainingConfig(micro_batch_size=micro_batch_size, global_batch_size=batch, bf16=True)
    run = RehearsedRun(model, parallel, OptimizerConfig(), training, world_size)
    replicas = parallel.data_parallel_size(world_size)
    sharding = "optimizer" if parallel.use_distributed_optimizer else "none"
    candidate = Candidate(parallel, micro_batch_size, replicas, sharding)
    planned = predict_memory(Work(model, batch), candidate)[0].tensors
    rehearsed, reason = rehearsed_apart(_training_peak, run)
    return Prediction(rehearsed, int(planned), reason)


def rehearsed_apart(function: Callable[..., int], *args: Any) -> tuple[Optional[int], str]:
    """What `function` gives in a fresh process, or why it failed there."""
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(function, *args).result(), ""
    except Exception as error:
        logger.warning("no prediction of memory: %s", reason_of(error))
        return None, reason_of(error)


def _training_peak(run: RehearsedRun) -> int:
    return rehearse_rank(run, 0).peak.total
