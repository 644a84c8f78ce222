"""The model of a seed is the same in every layout, padded vocabulary included."""

import pytest
import torch

from megatron_biollm.config import UserError
from megatron_biollm.device.runtime import select_device
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.parallel.parallelize import parallelize
from megatron_biollm.parallel.process_groups import create_process_groups

TP = "tensor_model_parallel_size"
PP = "pipeline_model_parallel_size"
VPP = "virtual_pipeline_model_parallel_size"
SIZES = {
    "num_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 8,
    "num_query_groups": 8,
    "ffn_hidden_size": 96,
    "seq_length": 32,
    "vocab_size": 500,
    "make_vocab_size_divisible_by": 256,
}
# Where tensor parallelism cuts a matrix: rows or columns; the two halves of SwiGLU each by itself.
CUT = {
    "word_embeddings": 0, "output_layer": 0, "linear_qkv": 0, "linear_fc1": 0,
    "linear_proj": 1, "linear_fc2": 1,
}  # fmt: skip


def build(parallel, seed=1, bf16=False):
    parallel = ParallelConfig(**parallel)
    groups = create_process_groups(parallel)
    return parallelize(ModelConfig(**SIZES), parallel, select_device("cpu"), groups, bf16, seed)


def initial_weights(parallel, seed=1, bf16=False):
    """Tensor-parallel rank, and this rank's weights by their global names."""
    model, weights = build(parallel, seed, bf16), {}
    for chunk in model.bare_chunks:
        chunk = getattr(chunk, "module", chunk)  # what holds a bf16 model casts its inputs
        first = chunk.decoder.layers[0].layer_number - 1
        for name, value in chunk.named_parameters():
            parts = name.split(".")
            if parts[1] == "layers":
                parts[2] = str(int(parts[2]) + first)
            weights[".".join(parts)] = value.detach().clone()
    return model.groups.tp.rank(), weights


def part_of(name, whole, rank, size):
    """The part of a whole weight that tensor-parallel rank `rank` of `size` holds."""
    axis = next((axis for part, axis in CUT.items() if part in name), None)
    if axis is None:
        return whole
    if "linear_fc1" in name:
        return torch.cat([half.chunk(size)[rank] for half in whole.chunk(2)])
    return whole.chunk(size, dim=axis)[rank]


@pytest.fixture(scope="module")
def whole(world):
    return world.run(1, initial_weights, {})[0][1]


@pytest.mark.parametrize(
    ("size", "parallel"),
    [
        (2, {TP: 2}),
        (8, {TP: 8, "sequence_parallel": True}),
        (2, {PP: 2}),
        (2, {PP: 2, VPP: 2}),
        (4, {PP: 4}),
        (2, {"context_parallel_size": 2}),
        (2, {}),
        (8, {TP: 2, PP: 2}),
    ],
)
def test_initial_weights_are_the_same_in_every_layout(world, whole, size, parallel):
    seen = set()
    for rank, weights in world.run(size, initial_weights, parallel):
        for name, value in weights.items():
            assert torch.equal(value, part_of(name, whole[name], rank, parallel.get(TP, 1))), name
        seen |= weights.keys()
    assert seen == whole.keys()


def test_initial_weights_have_the_documented_spread(whole):
    for name, weight in whole.items():
        if weight.dim() < 2:
            assert (weight == 1.0).all(), name
            continue
        residual = "linear_proj" in name or "linear_fc2" in name
        expected = 0.02 / (2 * SIZES["num_layers"]) ** 0.5 if residual else 0.02
        assert weight.std().item() == pytest.approx(expected, rel=0.05), name


def test_no_two_weights_are_drawn_alike(whole):
    firsts = [weight.flatten()[0].item() / weight.std().item()
              for weight in whole.values() if weight.dim() > 1]  # fmt: skip
    assert len(set(firsts)) == len(firsts)


def test_another_seed_draws_other_weights(world, whole):
    other = world.run(1, initial_weights, {}, 2)[0][1]
    assert not torch.equal(other["output_layer.weight"], whole["output_layer.weight"])


def test_bf16_weights_are_the_rounded_fp32_ones(world, whole):
    rounded = world.run(1, initial_weights, {}, 1, True)[0][1]
    assert all(torch.equal(rounded[name], whole[name].bfloat16()) for name in whole)


@pytest.mark.parametrize("tensor", [1, 2, 4, 8])
def test_the_padded_vocabulary_is_the_same_for_every_tensor_parallel_size(world, tensor):
    ranks = world.run(tensor, initial_weights, {TP: tensor})
    for name in ("embedding.word_embeddings.weight", "output_layer.weight"):
        assert sum(weights[name].shape[0] for _, weights in ranks) == 512


def refusal(parallel):
    with pytest.raises(UserError) as error:
        build(parallel)
    return str(error.value)


@pytest.mark.parametrize(
    ("size", "parallel", "message"),
    [
        (2, {TP: 4}, "world size 2 is not a multiple of"),
        (1, {PP: 3}, "world size 1 is not a multiple of"),
        (
            1,
            {"recompute_granularity": "selective", "recompute_modules": ["layernorm"]},
            "leave layernorm out",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_on_every_rank(world, size, parallel, message):
    assert all(message in text for text in world.run(size, refusal, parallel))
