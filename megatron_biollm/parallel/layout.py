"""Degrees of parallelism: pure arithmetic and every rule. Imports no framework."""

from dataclasses import dataclass
from typing import Optional

from megatron_biollm.config import UserError, option
from megatron_biollm.model.config import ModelConfig

RECOMPUTE_GRANULARITIES = ("full", "selective")
RECOMPUTE_METHODS = ("uniform", "block")
RECOMPUTE_MODULES = ("core_attn", "layernorm", "mlp")


@dataclass
class ParallelConfig:
    """How one model is laid over ranks. The data-parallel size is what remains of the world.

    Raises:
        UserError: a degree below 1, or options that exclude each other.
    """

    tensor_model_parallel_size: int = option(1, "ranks that share each matrix (TP)")
    pipeline_model_parallel_size: int = option(1, "ranks that share the layers in order (PP)")
    virtual_pipeline_model_parallel_size: Optional[int] = option(
        None, "model chunks per pipeline rank (interleaved schedule, VPP)"
    )
    context_parallel_size: int = option(1, "ranks that share each sequence (CP)")
    sequence_parallel: bool = option(
        False, "shard norms and residuals along the sequence over the TP ranks (SP)"
    )
    use_distributed_optimizer: bool = option(
        True, "shard the optimizer state over the data-parallel ranks"
    )
    recompute_granularity: Optional[str] = option(
        None, "recompute activations in the backward pass: full or selective"
    )
    recompute_method: Optional[str] = option(
        None, "full recompute: uniform (every recompute_num_layers) or block (the first ones)"
    )
    recompute_num_layers: Optional[int] = option(
        None, "full recompute: layers per checkpoint (uniform) or per stage (block)"
    )
    recompute_modules: list[str] = option(
        ["core_attn"], "selective recompute: core_attn, layernorm, mlp"
    )
    overlap_grad_reduce: bool = option(False, "reduce gradients while the backward pass runs")
    overlap_param_gather: bool = option(
        False, "gather updated parameters while the forward pass runs (distributed optimizer)"
    )
    overlap_p2p_comm: bool = option(
        False, "overlap pipeline sends with computation (interleaved schedule)"
    )
    distributed_timeout_minutes: int = option(10, "give up on a silent peer after this long")

    def __post_init__(self) -> None:
        for name in (
            "tensor_model_parallel_size",
            "pipeline_model_parallel_size",
            "context_parallel_size",
        ):
            if getattr(self, name) < 1:
                raise UserError(f"parallel.{name}={getattr(self, name)} must be at least 1")
        self._check_virtual_pipeline()
        self._check_recompute()
        self._check_overlap()
        if self.sequence_parallel and self.tensor_model_parallel_size == 1:
            raise UserError(
                "parallel.sequence_parallel=true needs tensor_model_parallel_size > 1 (it shards "
                "over the tensor-parallel ranks); switch it off or raise TP"
            )

    @property
    def model_parallel_size(self) -> int:
        """Ranks that hold one copy of the model and one copy of each sequence."""
        return (
            self.tensor_model_parallel_size
            * self.pipeline_model_parallel_size
            * self.context_parallel_size
        )

    @property
    def num_stages(self) -> int:
        """Pipeline ranks times model chunks per rank."""
        return self.pipeline_model_parallel_size * (self.virtual_pipeline_model_parallel_size or 1)

    def data_parallel_size(self, world_size: int) -> int:
        """Ranks left for data parallelism in a world of `world_size` ranks.

        Raises:
            UserError: the world is not a multiple of TP x PP x CP.
        """
        if world_size % self.model_parallel_size:
            raise UserError(
                f"world size {world_size} is not a multiple of TP x PP x CP = "
                f"{self.describe()} = {self.model_parallel_size}; start a multiple of "
                f"{self.model_parallel_size} processes (torchrun --nproc_per_node) or change "
                f"the degrees"
            )
        return world_size // self.model_parallel_size

    def describe(self, data_parallel_size: Optional[int] = None) -> str:
        """Short form such as `TP2 x PP2 x CP1 x DP4 + SP`; without DP where it is not known."""
        text = (
            f"TP{self.tensor_model_parallel_size} x PP{self.pipeline_model_parallel_size} "
            f"x CP{self.context_parallel_size}"
        )
        if self.virtual_pipeline_model_parallel_size:
            text += f" x VPP{self.virtual_pipeline_model_parallel_size}"
        if data_parallel_size is not None:
            text += f" x DP{data_parallel_size}"
        return text + (" + SP" if self.sequence_parallel else "")

    def _check_virtual_pipeline(self) -> None:
        virtual = self.virtual_pipeline_model_parallel_size
        if virtual is not None and virtual < 1:
            raise UserError(
                f"parallel.virtual_pipeline_model_parallel_size={virtual} must be at least 1"
            )
        if virtual == 1:
            self.virtual_pipeline_model_parallel_size = None
        elif virtual is not None and self.pipeline_model_parallel_size < 2:
            raise UserError(
                f"parallel.virtual_pipeline_model_parallel_size={virtual} interleaves chunks "
                f"between pipeline ranks and needs pipeline_model_parallel_size >= 2; unset it"
            )

    def _check_recompute(self) -> None:
        granularity = self.recompute_granularity
        if granularity not in (None, *RECOMPUTE_GRANULARITIES):
            raise UserError(
                f"parallel.recompute_granularity={granularity} is unknown; choose "
                f"{' or '.join(RECOMPUTE_GRANULARITIES)}, or leave it unset"
            )
        if self.recompute_num_layers is not None and self.recompute_num_layers < 1:
            raise UserError(
                f"parallel.recompute_num_layers={self.recompute_num_layers} must be at least 1"
            )
        if granularity == "full":
            self.recompute_method = self.recompute_method or "uniform"
            self.recompute_num_layers = self.recompute_num_layers or 1
        elif self.recompute_method or self.recompute_num_layers:
            raise UserError(
                "parallel.recompute_method and recompute_num_layers belong to "
                "recompute_granularity=full; set that or unset them"
            )
        if self.recompute_method not in (None, *RECOMPUTE_METHODS):
            raise UserError(
                f"parallel.recompute_method={self.recompute_method} is unknown; choose "
                f"{' or '.join(RECOMPUTE_METHODS)}"
            )
        unknown = set(self.recompute_modules) - set(RECOMPUTE_MODULES)
        if unknown:
            raise UserError(
                f"parallel.recompute_modules={sorted(unknown)} unknown; choose from "
                f"{', '.join(RECOMPUTE_MODULES)}"
            )

    def _check_overlap(self) -> None:
        if self.overlap_param_gather and not self.use_distributed_optimizer:
            raise UserError(
                "parallel.overlap_param_gather=true needs use_distributed_optimizer=true"
            )
        if self.overlap_param_gather and not self.overlap_grad_reduce:
            raise UserError("parallel.overlap_param_gather=true needs overlap_grad_reduce=true")
        if self.overlap_p2p_comm and not self.virtual_pipeline_model_parallel_size:
            raise UserError(
                "parallel.overlap_p2p_comm=true needs the interleaved schedule; set "
                "virtual_pipeline_model_parallel_size >= 2 or switch it off"
            )


def check_model_fits_layout(model: ModelConfig, parallel: ParallelConfig) -> None:
    """Checks every rule that involves both sizes and degrees.

    Raises:
        UserError: naming both values, the rule and the remedy.
    """
    tp = parallel.tensor_model_parallel_size
    for name in ("num_attention_heads", "num_query_groups", "ffn_hidden_size"):
        _check_divides(
            f"model.{name}", getattr(model, name), "parallel.tensor_model_parallel_size", tp
        )
    if model.vocab_size is not None:
        _check_divides(
            "the padded vocabulary",
            model.padded_vocab_size,
            "parallel.tensor_model_parallel_size",
            tp,
        )
    _check_stages(model, parallel)
    _check_sequence(model, parallel)


def _check_stages(model: ModelConfig, parallel: ParallelConfig) -> None:
    stages = parallel.num_stages
    if model.num_layers % stages:
        raise UserError(
            f"model.num_layers={model.num_layers} is not divisible by the {stages} pipeline "
            f"stages of {parallel.describe()} (PP x VPP); choose a PP x VPP that divides it"
        )
    per_stage = model.num_layers // stages
    if (parallel.recompute_num_layers or 0) > per_stage:
        raise UserError(
            f"parallel.recompute_num_layers={parallel.recompute_num_layers} exceeds the "
            f"{per_stage} layers of a stage; lower it"
        )


def _check_sequence(model: ModelConfig, parallel: ParallelConfig) -> None:
    cp, tp = parallel.context_parallel_size, parallel.tensor_model_parallel_size
    if cp > 1:
        # Each rank holds an early and a late chunk, so that causal attention is balanced.
        _check_divides(
            "model.seq_length", model.seq_length, "2 x parallel.context_parallel_size", 2 * cp
        )
    if parallel.sequence_parallel:
        _check_divides(
            "model.seq_length / parallel.context_parallel_size",
            model.seq_length // cp,
            "parallel.tensor_model_parallel_size",
            tp,
        )


def _check_divides(name: str, value: int, by: str, divisor: int) -> None:
    if value % divisor:
        raise UserError(f"{name}={value} is not divisible by {by}={divisor}; change one of them")
