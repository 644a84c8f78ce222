"""Parameters and FLOPs of the model, with the counting convention stated.

Conventions differ by up to 4 % on the same run (Llama-2-70B at 4,096 tokens: 444 GFLOP per token
with full attention, 428 with its causal half), so every number here names its own. Counted are
matrix products, two FLOPs for each multiply and add; norms, RoPE, softmax, the activation and the
embedding lookup are not, nor is anything computed a second time for recomputation.
"""

from __future__ import annotations

from dataclasses import dataclass

from megatron_biollm.model.config import ModelConfig

FORMULA = "6·(L·(2h² + 2hgd + 3hf) + hV) + 6·L·h·s"


@dataclass(frozen=True)
class TokenFlops:
    """FLOPs of the forward pass for one token, by part of the model.

    Attributes:
        projections: query, key, value and output projections of all layers.
        attention: scores and weighted values, averaged over the positions of a sequence.
        feed_forward: the three SwiGLU matrices of all layers.
        output: the layer onto the padded vocabulary.
    """

    projections: float
    attention: float
    feed_forward: float
    output: float

    @property
    def forward(self) -> float:
        return self.projections + self.attention + self.feed_forward + self.output

    @property
    def forward_backward(self) -> float:
        """The backward pass costs twice the forward pass: one product for the gradient of the
        input and one for the gradient of the weight (or of the other factor, in attention)."""
        return 3 * self.forward


def token_flops(
    model: ModelConfig, seq_length: int | None = None, causal: bool = True
) -> TokenFlops:
    """FLOPs of one token's forward pass.

    seq_length: tokens that attend to each other; the model's own if None.
    causal: counts the half of the attention matrix that causality leaves, s/2 keys per query;
        False counts all s keys, as NeMo 24.12 and torchtitan's A100 rows do.
    """
    sequence = seq_length or model.seq_length
    hidden, layers = model.hidden_size, model.num_layers
    keys = sequence / 2 if causal else sequence
    return TokenFlops(
        projections=2 * layers * _attention_parameters(model),
        attention=2 * layers * 2 * hidden * keys,
        feed_forward=2 * layers * _feed_forward_parameters(model),
        output=2 * hidden * model.padded_vocab_size,
    )


def flops_per_token(model: ModelConfig, seq_length: int | None = None) -> float:
    """FLOPs to train on one token, forward and backward, with the causal half of attention."""
    return token_flops(model, seq_length).forward_backward


def flops_per_token_6n(model: ModelConfig) -> float:
    """The plain 6N of scaling-law papers: every parameter counts, attention scores do not."""
    return 6.0 * num_parameters(model)


def num_parameters(model: ModelConfig) -> int:
    """Parameters of the whole model, with the padding of both embeddings."""
    hidden = model.hidden_size
    layer = _attention_parameters(model) + _feed_forward_parameters(model) + 2 * hidden
    return model.num_layers * layer + 2 * model.padded_vocab_size * hidden + hidden


def describe_flops(model: ModelConfig, seq_length: int | None = None) -> str:
    """The formula with this model's sizes and result, for the head of a run's log."""
    counted, plain = flops_per_token(model, seq_length), flops_per_token_6n(model)
    sizes = (
        f"L={model.num_layers} h={model.hidden_size} g={model.num_query_groups} "
        f"d={model.kv_channels} f={model.ffn_hidden_size} V={model.padded_vocab_size} "
        f"s={seq_length or model.seq_length}"
    )
    return (
        f"FLOPs per token, forward and backward = {FORMULA} = {_short(counted)} ({sizes}; causal "
        f"half of attention, no recomputation; plain 6N would be {_short(plain)} with "
        f"N={num_parameters(model):,})"
    )


def _attention_parameters(model: ModelConfig) -> int:
    """Query and output are h x h, since heads x head width = h; key and value are h x gd."""
    hidden = model.hidden_size
    return 2 * hidden * hidden + 2 * hidden * model.num_query_groups * model.kv_channels


def _feed_forward_parameters(model: ModelConfig) -> int:
    return 3 * model.hidden_size * model.ffn_hidden_size


def _short(flops: float) -> str:
    for unit, size in (("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6)):
        if flops >= size:
            return f"{flops / size:.4g} {unit}"
    return f"{flops:.0f} FLOP"
