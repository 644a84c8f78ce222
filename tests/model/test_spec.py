import importlib.util
import math

import pytest
import torch
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron_biollm.config import UserError
from megatron_biollm.model.spec import RMSNorm, SDPAttention, choose_transformer_impl

HEADS, GROUPS, WIDTH, BATCH = 8, 2, 16, 3


@pytest.fixture
def attention():
    config = TransformerConfig(
        num_layers=1, hidden_size=HEADS * WIDTH, num_attention_heads=HEADS,
        num_query_groups=GROUPS, use_cpu_initialization=True,
    )  # fmt: skip
    return SDPAttention(config, 1, AttnMaskType.causal, "self")


def inputs(queries, keys, batch=(BATCH,), groups=GROUPS):
    random = torch.Generator().manual_seed(0)
    shapes = [(queries, *batch, HEADS, WIDTH)] + 2 * [(keys, *batch, groups, WIDTH)]
    return [torch.randn(shape, generator=random, requires_grad=True) for shape in shapes]


def softmax_attention(query_sbnd, key_sbgd, value_sbgd, visible):
    """Attention as the textbook has it: [s, b, n, d] in, [s, b, n*d] out; visible[query, key]."""
    repeats = query_sbnd.shape[2] // key_sbgd.shape[2]
    key, value = (x.repeat_interleave(repeats, dim=2) for x in (key_sbgd, value_sbgd))
    scores = torch.einsum("sbnd,tbnd->bnst", query_sbnd, key) / math.sqrt(query_sbnd.shape[3])
    weights = scores.masked_fill(~visible, float("-inf")).softmax(dim=-1)
    return torch.einsum("bnst,tbnd->sbnd", weights, value).flatten(2)


def causal(queries, keys):
    """The queries are the last of the keys' positions."""
    position = torch.arange(keys)
    return position[-queries:, None] >= position


def assert_same_with_gradients(ours, theirs, tensors):
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    weights = torch.linspace(-1, 1, ours.numel()).view_as(ours)
    gradients = [torch.autograd.grad((out * weights).sum(), tensors) for out in (ours, theirs)]
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [1, GROUPS, HEADS])
def test_it_equals_softmax_attention_for_grouped_queries(attention, groups):
    tensors = inputs(12, 12, groups=groups)
    expected = softmax_attention(*tensors, causal(12, 12))
    assert_same_with_gradients(attention(*tensors, None), expected, tensors)


@pytest.mark.parametrize(("queries", "keys"), [(1, 12), (5, 12), (12, 12)])
def test_new_tokens_see_the_keys_of_a_cache_up_to_themselves(attention, queries, keys):
    tensors = inputs(queries, keys)
    expected = softmax_attention(*tensors, causal(queries, keys))
    assert_same_with_gradients(attention(*tensors, None), expected, tensors)


def test_a_given_mask_is_used(attention):
    tensors = inputs(6, 6)
    hidden = torch.ones(6, 6, dtype=torch.bool).triu(1)
    hidden[4, 1] = True
    expected = softmax_attention(*tensors, ~hidden)
    assert_same_with_gradients(attention(*tensors, hidden[None, None]), expected, tensors)


@pytest.mark.parametrize("lengths", [[12], [5, 7], [1, 1, 4, 6]])
def test_packed_documents_do_not_see_each_other(attention, lengths):
    tensors = inputs(12, 12, batch=())
    boundaries = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    packed = PackedSeqParams(qkv_format="thd", cu_seqlens_q=boundaries, cu_seqlens_kv=boundaries)
    parts = [
        softmax_attention(
            *(x[first:stop, None] for x in tensors), causal(stop - first, stop - first)
        )
        for first, stop in zip(boundaries[:-1].tolist(), boundaries[1:].tolist(), strict=True)
    ]
    ours = attention(*tensors, None, packed_seq_params=packed)
    assert_same_with_gradients(ours, torch.cat(parts)[:, 0], tensors)


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_the_norm_tells_core_whether_its_gradients_are_partial(sequence_parallel):
    config = TransformerConfig(
        num_layers=1, hidden_size=8, num_attention_heads=2, tensor_model_parallel_size=2,
        sequence_parallel=sequence_parallel, use_cpu_initialization=True,
    )  # fmt: skip
    norm = RMSNorm(config, 8, eps=1e-5)
    assert norm.weight.sequence_parallel is sequence_parallel
    x = torch.randn(3, 8)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    assert torch.allclose(norm(x), expected, atol=1e-6)


def test_auto_takes_the_local_layers_on_the_cpu_and_says_why():
    assert choose_transformer_impl("auto", "cpu") == ("local", "auto: the run is on the CPU")
    assert choose_transformer_impl("local", "cpu")[1] == "asked for by model.transformer_impl"


def test_transformer_engine_on_the_cpu_is_refused_with_the_remedy():
    with pytest.raises(UserError, match="needs a GPU, which is absent .*transformer_impl=local"):
        choose_transformer_impl("transformer_engine", "cpu")


@pytest.mark.skipif(
    importlib.util.find_spec("transformer_engine") is not None, reason="it is installed here"
)
def test_absent_transformer_engine_is_refused_on_a_gpu_and_passed_over_by_auto():
    with pytest.raises(UserError, match="needs the package transformer-engine.*cuda"):
        choose_transformer_impl("transformer_engine", "cuda")
    expected = ("local", "auto: transformer-engine is absent")
    assert choose_transformer_impl("auto", "cuda") == expected
