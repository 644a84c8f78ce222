"""Bytes of activations, as megatron-core holds them with Transformer Engine's fused layers.

Counted tensor by tensor from what each module saves for its backward pass. Published formulas
(Korthikanti et al. 2022, https://arxiv.org/abs/2205.05198) are for GELU, dropout and attention that
stores its scores; here there is SwiGLU, no dropout, and flash attention, which keeps one number per
query and head.
"""

from dataclasses import dataclass

from megatron_biollm.model.config import ModelConfig
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.planner.candidate import Candidate, Work

FP32, BF16, FP8 = 4, 2, 1


@dataclass(frozen=True)
class LayerBytes:
    """Bytes that one transformer layer holds for one token on one rank, by saved tensor.

    Attributes:
        stream: input of one norm; the residual stream itself.
        normed: output of one norm, input of the matrix after it.
        queries: after RoPE; the output of the attention is as large.
        keys: after RoPE; the values are as large.
        statistics: of the softmax, one fp32 number per query and head.
        gate_up: joint gate and up product, which SwiGLU saves.
        activated: output of SwiGLU, input of the last matrix.
    """

    stream: float
    normed: float
    queries: float
    keys: float
    statistics: float
    gate_up: float
    activated: float

    @property
    def attention(self) -> float:
        """Queries, keys, values, output and statistics. The joint product of the query, key and
        value matrix is gone: the kernel wants values that lie together, and copies them."""
        return 2 * self.queries + 2 * self.keys + self.statistics

    @property
    def recomputed_attention(self) -> float:
        """What remains of it when the attention is recomputed: the values are then held as a view
        of the joint product, so all of that stays, and flash attention saves nothing by it."""
        joint = self.queries + 2 * self.keys
        return joint + 2 * self.queries + self.keys

    @property
    def feed_forward(self) -> float:
        """What the feed-forward part holds beside its input in the residual stream."""
        return self.normed + self.gate_up + self.activated

    @property
    def whole(self) -> float:
        """The layer without recomputation."""
        return 2 * self.stream + self.normed + self.attention + self.feed_forward


def layer_bytes(work: Work, parallel: ParallelConfig) -> LayerBytes:
    """Bytes per token of one layer on one rank. FP8 keeps the matrices' inputs in one byte."""
    model, tp = work.model, parallel.tensor_model_parallel_size
    shared = stream_ranks(parallel)
    matrix_input = FP8 if work.precision == "fp8" else BF16
    return LayerBytes(
        # RMSNorm saves its input and one fp32 number per token.
        stream=(BF16 * model.hidden_size + FP32) / shared,
        normed=matrix_input * model.hidden_size / shared,
        queries=BF16 * model.hidden_size / tp,
        keys=BF16 * key_width(model) / tp,
        statistics=FP32 * model.num_attention_heads / tp,
        gate_up=BF16 * 2 * model.ffn_hidden_size / tp,
        activated=matrix_input * model.ffn_hidden_size / tp,
    )


def key_width(model: ModelConfig) -> int:
    """Columns of the keys (and of the values) of all ranks."""
    return model.num_query_groups * model.kv_channels


def stream_ranks(parallel: ParallelConfig) -> int:
    """Ranks that share the residual stream: those of TP with sequence parallelism, else one."""
    return parallel.tensor_model_parallel_size if parallel.sequence_parallel else 1


def tokens_per_microbatch(work: Work, candidate: Candidate) -> float:
    """Tokens of one micro-batch on one rank; context parallelism splits the sequence."""
    sequence = work.model.seq_length / candidate.parallel.context_parallel_size
    return candidate.micro_batch_size * sequence


def recomputed_modules(parallel: ParallelConfig) -> frozenset[str]:
    """Parts of a layer that selective recomputation computes a second time; empty without it."""
    if parallel.recompute_granularity != "selective":
        return frozenset()
    return frozenset(parallel.recompute_modules)


def held_per_chunk(work: Work, parallel: ParallelConfig) -> float:
    """Bytes per token that one micro-batch leaves in one model chunk until its backward pass."""
    layers = work.model.num_layers // parallel.num_stages
    parts = layer_bytes(work, parallel)
    if parallel.recompute_granularity != "full":
        return layers * _held_by_layer(parts, recomputed_modules(parallel))
    units = parallel.recompute_num_layers
    if parallel.recompute_method == "block":
        # The first layers keep their input, the others everything.
        return units * parts.stream + (layers - units) * parts.whole
    return -(-layers // units) * parts.stream


def recomputed_at_once(work: Work, parallel: ParallelConfig) -> float:
    """Bytes per token that come back when the backward pass recomputes one unit."""
    parts = layer_bytes(work, parallel)
    if parallel.recompute_granularity == "full":
        layers = parallel.recompute_num_layers if parallel.recompute_method == "uniform" else 1
        return layers * parts.whole - parts.stream
    modules = recomputed_modules(parallel)
    attention = parts.queries + parts.keys + parts.statistics if "core_attn" in modules else 0
    feed_forward = parts.feed_forward if "mlp" in modules else 0
    return max(attention, feed_forward)


def backward_workspace(work: Work, parallel: ParallelConfig) -> float:
    """Bytes per token of gradients and gathered inputs while one layer runs backward.

    The gradient of the residual stream, and the larger of two moments in the feed-forward part: its
    last matrix (the gathered gradient of the output, the gradient of the input) or SwiGLU (the
    gradients of gate and up).
    """
    model, tp = work.model, parallel.tensor_model_parallel_size
    gathered = BF16 * model.hidden_size if stream_ranks(parallel) > 1 else 0
    last_matrix = gathered + BF16 * model.ffn_hidden_size / tp
    swiglu = 2 * BF16 * model.ffn_hidden_size / tp
    return BF16 * model.hidden_size / stream_ranks(parallel) + max(last_matrix, swiglu)


def _held_by_layer(parts: LayerBytes, modules: frozenset[str]) -> float:
    """Recomputing `layernorm` saves nothing: Transformer Engine's norms are part of the matrices
    after them, and core recomputes only norms that stand alone."""
    attention = parts.recomputed_attention if "core_attn" in modules else parts.attention
    feed_forward = 0 if "mlp" in modules else parts.feed_forward
    return 2 * parts.stream + parts.normed + attention + feed_forward
