import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from megatron_biollm.model.config import ModelConfig
from megatron_biollm.model.flops import (
    describe_flops,
    flops_per_token,
    flops_per_token_6n,
    num_parameters,
    token_flops,
)

LLAMA_2_70B = ModelConfig(preset="70b", vocab_size=32000, make_vocab_size_divisible_by=128)
LLAMA_3_70B = ModelConfig(
    preset="70b", vocab_size=128256, make_vocab_size_divisible_by=128, seq_length=8192
)


@pytest.fixture
def small():
    return ModelConfig(
        num_layers=2,
        hidden_size=32,
        num_attention_heads=4,
        num_query_groups=2,
        ffn_hidden_size=48,
        seq_length=16,
        vocab_size=60,
        make_vocab_size_divisible_by=64,
    )


class Layer(nn.Module):
    """A LLaMA layer without RoPE, in plain PyTorch."""

    def __init__(self, size: ModelConfig):
        super().__init__()
        self.size = size
        hidden, kv = size.hidden_size, size.num_query_groups * size.kv_channels
        self.q, self.o = (nn.Linear(hidden, hidden, bias=False) for _ in range(2))
        self.k, self.v = (nn.Linear(hidden, kv, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(hidden, size.ffn_hidden_size, bias=False) for _ in "gu")
        self.down = nn.Linear(size.ffn_hidden_size, hidden, bias=False)
        self.norms = nn.ModuleList(nn.RMSNorm(hidden) for _ in range(2))

    def forward(self, x_BSH, causal):
        x_BSH = x_BSH + self.o(self.attend(self.norms[0](x_BSH), causal))
        y_BSH = self.norms[1](x_BSH)
        return x_BSH + self.down(functional.silu(self.gate(y_BSH)) * self.up(y_BSH))

    def attend(self, x_BSH, causal):
        width = self.size.kv_channels
        heads = self.size.num_attention_heads // self.size.num_query_groups
        q, k, v = (
            layer(x_BSH).unflatten(-1, (-1, width)).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        k, v = (t.repeat_interleave(heads, dim=1) for t in (k, v))
        if not causal:
            return ((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2)
        # Each query meets only the keys that causality leaves it.
        rows = [
            (q[:, :, i : i + 1] @ k[:, :, : i + 1].mT).softmax(-1) @ v[:, :, : i + 1]
            for i in range(q.shape[2])
        ]
        return torch.cat(rows, dim=2).transpose(1, 2).flatten(2)


class Plain(nn.Module):
    def __init__(self, size: ModelConfig):
        super().__init__()
        self.embedding = nn.Embedding(size.padded_vocab_size, size.hidden_size)
        self.layers = nn.ModuleList(Layer(size) for _ in range(size.num_layers))
        self.norm = nn.RMSNorm(size.hidden_size)
        self.output = nn.Linear(size.hidden_size, size.padded_vocab_size, bias=False)

    def forward(self, tokens_BS, causal):
        x_BSH = self.embedding(tokens_BS)
        for layer in self.layers:
            x_BSH = layer(x_BSH, causal)
        return self.output(self.norm(x_BSH))


def count_with_torch(size: ModelConfig, causal: bool) -> tuple[float, float]:
    """FLOPs per token that torch counts: forward, and forward with backward."""
    model, tokens_BS = Plain(size), torch.zeros(3, size.seq_length, dtype=torch.long)
    with FlopCounterMode(display=False) as forward:
        logits = model(tokens_BS, causal)
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    flops, both = forward.get_total_flops(), backward.get_total_flops()
    return flops / tokens_BS.numel(), (flops + both) / tokens_BS.numel()


def test_parameters_are_those_of_the_same_model_in_plain_pytorch(small):
    assert num_parameters(small) == sum(p.numel() for p in Plain(small).parameters())


def test_full_attention_is_what_torch_counts(small):
    forward, both = count_with_torch(small, causal=False)
    counted = token_flops(small, causal=False)
    assert counted.forward == forward
    assert counted.forward_backward == both


def test_the_causal_half_is_what_torch_counts_up_to_the_diagonal(small):
    forward, both = count_with_torch(small, causal=True)
    counted = token_flops(small)
    # Query i meets i+1 keys, (s+1)/2 on average, where the convention says s/2.
    diagonal = counted.attention / small.seq_length
    assert counted.forward + diagonal == forward
    assert counted.forward_backward + 3 * diagonal == both


@pytest.mark.parametrize(
    ("model", "causal", "gflop"),
    [
        (LLAMA_2_70B, True, 428),
        (LLAMA_2_70B, False, 444),
        (LLAMA_3_70B, True, 449),
        (LLAMA_3_70B, False, 481),
    ],
)
def test_known_models_have_the_flops_behind_their_published_rates(model, causal, gflop):
    # Stated TFLOP/s over tokens/s of NeMo 24.12 and torchtitan (full), Megatron-Bridge (causal).
    counted = token_flops(model, causal=causal).forward_backward / 1e9
    assert counted == pytest.approx(gflop, rel=0.005)


def test_llama_2_70b_has_69_billion_parameters():
    assert num_parameters(LLAMA_2_70B) == 68_976_648_192  # the published checkpoint's count


def test_6n_counts_parameters_alone(small):
    assert flops_per_token_6n(small) == 6 * num_parameters(small)


def test_a_longer_sequence_costs_attention_only(small):
    short, long = token_flops(small, seq_length=16), token_flops(small, seq_length=64)
    assert long.attention == 4 * short.attention
    assert long.forward - long.attention == short.forward - short.attention


def test_the_printed_formula_gives_the_printed_number(small):
    L, h, g, d, f, V, s = 2, 32, 2, 8, 48, 64, 16
    by_hand = 6 * (L * (2 * h**2 + 2 * h * g * d + 3 * h * f) + h * V) + 6 * L * h * s
    assert flops_per_token(small) == by_hand
    text = describe_flops(small)
    assert "6·(L·(2h² + 2hgd + 3hf) + hV) + 6·L·h·s = " in text
    assert "L=2 h=32 g=2 d=8 f=48 V=64 s=16" in text
    assert "FLOP (" in text and "causal half" in text
