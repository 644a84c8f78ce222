"""Seconds that one GPU computes on one layer, by kind of kernel.

Matrix products run at a share of the best measured rate and besides move their operands once, so
small ones are slower. Flash attention computes only the causal half, and in the backward pass its
scores again. Everything else is bound by memory bandwidth.
"""

from dataclasses import dataclass

from megatron_biollm.model.config import ModelConfig
from megatron_biollm.planner.calibration import Calibration
from megatron_biollm.planner.candidate import Candidate, Work
from megatron_biollm.planner.hardware import Gpu
from megatron_biollm.planner.software import Software

BF16 = 2
FP32 = 4
# What flash attention of the second generation reaches at most, FLOP/s: it does not use the
# asynchronous copies and products of GPUs after the A100 (https://arxiv.org/abs/2407.08608, figures
# 5 and 6, heads of 128, causal).
FLASH2_CEILING = 350e12
# Quantising an activation for FP8 reads it once and writes it twice, as it is and transposed.
FP8_CAST_BYTES = 4
# Scores of attention without flash kernels, bytes per score: written by the product, read and
# written by softmax and dropout, with the dropout's mask, read by the second product; and back.
SCORES_FORWARD, SCORES_BACKWARD = 14, 17
# The loss in FP32 from BF16 logits, bytes per logit: a copy, maximum, exponential and sum; the
# gradient, and its cast to BF16.
LOGITS_FORWARD, LOGITS_BACKWARD = 18, 10


@dataclass(frozen=True)
class Seconds:
    """One pass, or several added, of one micro-batch.

    Attributes:
        matmul: matrix products.
        attention: scores and weighted values.
        memory: bound by memory bandwidth.
    """

    matmul: float = 0.0
    attention: float = 0.0
    memory: float = 0.0

    @property
    def total(self) -> float:
        return self.matmul + self.attention + self.memory

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(
            self.matmul + other.matmul,
            self.attention + other.attention,
            self.memory + other.memory,
        )

    def __mul__(self, factor: float) -> "Seconds":
        return Seconds(self.matmul * factor, self.attention * factor, self.memory * factor)


@dataclass(frozen=True)
class Kernels:
    """Times of the kernels that one micro-batch needs on one GPU."""

    work: Work
    candidate: Candidate
    gpu: Gpu
    calibration: Calibration
    software: Software

    @property
    def model(self) -> ModelConfig:
        return self.work.model

    @property
    def tp(self) -> int:
        return self.candidate.parallel.tensor_model_parallel_size

    @property
    def tokens(self) -> int:
        """Of a micro-batch on one context-parallel rank."""
        parallel = self.candidate.parallel
        sequence = self.model.seq_length / parallel.context_parallel_size
        return int(self.candidate.micro_batch_size * sequence)

    @property
    def layer_parameters(self) -> float:
        """Of one layer on one tensor-parallel rank."""
        return float(sum(n * k for n, k in self._shapes()))

    @property
    def output_parameters(self) -> float:
        """Of the output layer on one tensor-parallel rank, as many as of the embedding."""
        return self.model.hidden_size * self.model.padded_vocab_size / self.tp

    def layer_forward(self) -> Seconds:
        """Forward pass of one layer."""
        products = sum(self._product(self.tokens, n, k) for n, k in self._shapes())
        attention = self._attention(1.0, SCORES_FORWARD)
        return Seconds(products, attention, self._elementwise(10, 3) + self._casts())

    def layer_backward(self) -> Seconds:
        """Backward pass of one layer, nothing recomputed but the scores in flash attention."""
        inputs = sum(self._product(self.tokens, k, n) for n, k in self._shapes())
        weights = sum(self._weight_gradient(n, k, self.work.precision) for n, k in self._shapes())
        attention = self._attention(
            2.0 if self.software.attention == "scores" else 2.5, SCORES_BACKWARD
        )
        return Seconds(inputs + weights, attention, self._elementwise(14, 5) + self._casts())

    def attention_forward(self) -> Seconds:
        """What selective recomputation repeats."""
        return Seconds(attention=self._attention(1.0, SCORES_FORWARD))

    def feed_forward(self) -> Seconds:
        """Forward pass of the feed-forward part, which selective recomputation may repeat."""
        products = sum(self._product(self.tokens, n, k) for n, k in self._shapes()[2:])
        width = 3 * self.model.ffn_hidden_size / self.tp
        return Seconds(matmul=products, memory=self._move(self.tokens * width * BF16))

    def output_forward(self) -> Seconds:
        """Output layer and loss."""
        hidden, rows = self.model.hidden_size, self.model.padded_vocab_size // self.tp
        loss = self.tokens * rows * LOGITS_FORWARD
        return Seconds(self._product(self.tokens, rows, hidden, "bf16"), memory=self._move(loss))

    def output_backward(self, deferred: bool = False) -> Seconds:
        """deferred: without the gradient of its weight."""
        hidden, rows = self.model.hidden_size, self.model.padded_vocab_size // self.tp
        product = self._product(self.tokens, hidden, rows, "bf16")
        if not deferred:
            product += self._weight_gradient(rows, hidden, "bf16")
        return Seconds(product, memory=self._move(self.tokens * rows * LOGITS_BACKWARD))

    def optimizer(self, parameters: float) -> float:
        """Adam on FP32 copies: reads gradient, weight and two moments, writes the last three and
        the BF16 weight; the norm reads the gradient once more."""
        return self._move(parameters * (8 * FP32 + BF16))

    def power_share(self) -> float:
        """Of the sustained rates, what a lower power limit than theirs leaves."""
        measured_at = self.gpu.sustained_at_watts or self.gpu.power_watts
        return (self.gpu.power_watts / measured_at) ** self.calibration.power_exponent

    def _shapes(self) -> list[tuple[int, int]]:
        """Rows and columns of a layer's matrices on one tensor-parallel rank."""
        model, tp = self.model, self.tp
        queries_keys_values = model.hidden_size + 2 * model.num_query_groups * model.kv_channels
        return [
            (queries_keys_values // tp, model.hidden_size),
            (model.hidden_size, model.hidden_size // tp),
            (2 * model.ffn_hidden_size // tp, model.hidden_size),
            (model.hidden_size, model.ffn_hidden_size // tp),
        ]

    def _product(self, m: int, n: int, k: int, precision: str = "") -> float:
        precision = precision or self.work.precision
        operand = BF16 if precision == "bf16" else 1
        moved = operand * (m * k + k * n) + BF16 * m * n
        return 2.0 * m * n * k / self._rate(precision) + self._move(moved)

    def _weight_gradient(self, n: int, k: int, precision: str) -> float:
        """Added to FP32 gradients in place."""
        operand = BF16 if precision == "bf16" else 1
        moved = operand * self.tokens * (n + k) + 2 * FP32 * n * k
        return 2.0 * self.tokens * n * k / self._rate(precision) + self._move(moved)

    def _rate(self, precision: str) -> float:
        share = getattr(self.calibration, f"matmul_{precision}")
        return self.gpu.sustained_flops(precision) * share * self.power_share()

    def _attention(self, forwards: float, score_bytes: int) -> float:
        """forwards: work in units of the forward pass."""
        model = self.model
        scores = self.tokens * model.seq_length * model.num_attention_heads / self.tp
        flops = 2 * 2 * model.kv_channels * scores * forwards
        if self.software.attention == "scores":
            products = flops / self._rate("bf16")
            return products + self._move(scores * score_bytes)
        rate = self.gpu.sustained_flops() * self.calibration.attention
        if self.software.attention == "flash2":
            rate = min(rate, FLASH2_CEILING)
        return flops / 2 / (rate * self.power_share())

    def _elementwise(self, residuals: int, feed_forwards: int) -> float:
        """Norms and residual additions, whose tokens sequence parallelism shares out; RoPE and
        SwiGLU. residuals, feed_forwards: elements read and written per token, in units of the
        residual stream's and of the feed-forward layer's width."""
        model = self.model
        shared = self.tp if self.candidate.parallel.sequence_parallel else 1
        rotary = 2 * (model.hidden_size + model.num_query_groups * model.kv_channels)
        elements = residuals * model.hidden_size / shared
        elements += (rotary + feed_forwards * model.ffn_hidden_size) / self.tp
        factor = 1.0 if self.software.fused else self.calibration.elementwise_eager
        return self._move(self.tokens * elements * BF16 * factor)

    def _casts(self) -> float:
        if self.work.precision == "bf16":
            return 0.0
        elements = sum(k for _, k in self._shapes()) * self.tokens
        return self._move(elements * FP8_CAST_BYTES)

    def _move(self, moved: float) -> float:
        return moved / (self.gpu.memory_bandwidth * 1e9 * self.calibration.memory)
