"""Blocks cover every row once, their segments lie where core and Hugging Face have them."""

import pytest
import torch

from megatron_biollm.config import UserError
from megatron_biollm.conversion.blocks import (
    Block,
    Scratch,
    Segment,
    blocks,
    check_finite,
    segments,
    weight_bytes,
)
from megatron_biollm.conversion.names import megatron_shape, weights
from megatron_biollm.model.config import ModelConfig

SIZES = ModelConfig(
    num_layers=1,
    hidden_size=8,
    num_attention_heads=4,
    num_query_groups=2,
    ffn_hidden_size=6,
    seq_length=8,
    vocab_size=10,
    make_vocab_size_divisible_by=16,
)
QKV = next(weight for weight in weights(1) if weight.mapping.by_group)


def test_queries_keys_and_values_lie_group_by_group():
    # Two heads of width 2 per group: 4 rows of q, 2 of k, 2 of v, twice.
    assert list(segments(Block(QKV, 0, 16), SIZES)) == [
        Segment(0, 4, 0, 0),
        Segment(4, 2, 1, 0),
        Segment(6, 2, 2, 0),
        Segment(8, 4, 0, 4),
        Segment(12, 2, 1, 2),
        Segment(14, 2, 2, 2),
    ]


def test_a_block_that_cuts_through_heads_has_the_rest_of_their_rows():
    assert list(segments(Block(QKV, 3, 9), SIZES)) == [
        Segment(0, 1, 0, 3),
        Segment(1, 2, 1, 0),
        Segment(3, 2, 2, 0),
        Segment(5, 1, 0, 4),
    ]


@pytest.mark.parametrize("limit", [1, 100, 10**6])
def test_blocks_of_any_size_meet_every_row_of_every_part_once(limit):
    rows = {name: 0 for weight in weights(1) for name in weight.parts}
    for block in blocks(SIZES, 4, padded=True, limit=limit):
        columns = torch.Size(megatron_shape(block.weight.mapping, SIZES)[1:]).numel()
        assert block.rows == 1 or block.rows * columns * 4 <= limit
        for segment in segments(block, SIZES):
            rows[block.weight.parts[segment.part]] += segment.rows
    assert rows["model.embed_tokens.weight"] == rows["lm_head.weight"] == 10
    assert rows["model.layers.0.self_attn.q_proj.weight"] == 8
    assert rows["model.layers.0.mlp.up_proj.weight"] == 6
    assert rows["model.norm.weight"] == 8


def test_padding_counts_where_it_is_written():
    padding = 2 * 6 * 8 * 2  # two matrices, six rows of eight columns, two bytes
    assert weight_bytes(SIZES, 2, padded=True) == weight_bytes(SIZES, 2, padded=False) + padding


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_value_that_is_not_finite_is_found(bad, dtype):
    values = torch.randn(600, 5).to(dtype)
    values[511, 3] = bad
    with pytest.raises(UserError, match="w holds NaN or infinity"):
        check_finite("w", values)


def test_opposite_infinities_are_found_and_huge_values_pass():
    with pytest.raises(UserError, match="w holds NaN"):
        check_finite("w", torch.tensor([float("inf"), float("-inf")]))
    huge = torch.full((300, 4), 3e38)  # their sum is no fp32 number
    assert check_finite("w", huge) is huge


def test_scratch_gives_the_same_memory_with_a_storage_of_its_own():
    scratch = Scratch()
    one = scratch.take((4, 6), torch.float32)
    two = scratch.take((2, 3), torch.bfloat16)
    assert one.data_ptr() == two.data_ptr() and two.untyped_storage().nbytes() == 12
