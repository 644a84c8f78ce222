"""What is to be trained, and one way to lay it over GPUs."""

from dataclasses import dataclass

from megatron_biollm.config import UserError
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.parallel.layout import ParallelConfig

PRECISIONS = ("bf16", "fp8")
SHARDINGS = ("none", "optimizer", "full")


@dataclass(frozen=True)
class Work:
    """What is to be done, whatever the layout.

    Attributes:
        model: the network; its vocabulary size must be known.
        global_batch_size: sequences per optimizer step.
        precision: of the matrix products, "bf16" or "fp8".

    Raises:
        UserError: an unknown precision, or no vocabulary size.
    """

    model: ModelConfig
    global_batch_size: int
    precision: str = "bf16"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UserError(
                f"precision={self.precision} is unknown; choose {' or '.join(PRECISIONS)}"
            )
        if self.model.vocab_size is None:
            raise UserError("the vocabulary size is unknown; give model.vocab_size=34000, say")

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step."""
        return self.global_batch_size * self.model.seq_length


@dataclass(frozen=True)
class Candidate:
    """One layout.

    Attributes:
        parallel: degrees, recomputation and overlap; the run's own section.
        micro_batch_size: sequences per forward pass.
        data_parallel_size: replicas, context parallelism not counted.
        sharding: over the replicas: "none", "optimizer" (core's distributed optimizer, ZeRO-1), or
            "full" (FSDP, ZeRO-3), which only published rows of other frameworks use.
    """

    parallel: ParallelConfig
    micro_batch_size: int
    data_parallel_size: int
    sharding: str = "optimizer"

    def __post_init__(self) -> None:
        if self.sharding not in SHARDINGS:
            raise ValueError(f"sharding={self.sharding}: one of {', '.join(SHARDINGS)}")

    @property
    def world_size(self) -> int:
        """GPUs in all."""
        return self.parallel.model_parallel_size * self.data_parallel_size

    def num_microbatches(self, work: Work) -> int:
        """Forward passes per step and replica."""
        return work.global_batch_size // (self.micro_batch_size * self.data_parallel_size)

    def describe(self) -> str:
        """Short form such as `TP8 x PP8 x CP1 x VPP5 x DP4 + SP, mbs 1, selective`."""
        recompute = self.parallel.recompute_granularity or "no recompute"
        layout = self.parallel.describe(self.data_parallel_size)
        return f"{layout}, mbs {self.micro_batch_size}, {recompute}"
