"""Weight names and shapes on both sides: one table, read in both directions.

megatron-core's names are those of its torch_dist checkpoints, which are the same for the local
layers and for Transformer Engine's: core maps the local norms to the fused names
(``sharded_state_dict_keys_map``). Hugging Face's are those of ``LlamaForCausalLM``.

Both rotate the two halves of a head against each other (RoPE, ``rotary_interleaved=False`` in
core), so rows of queries and keys keep their order inside a head.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from megatron_biollm.model.config import ModelConfig

EMBEDDING = "embedding.word_embeddings.weight"
OUTPUT = "output_layer.weight"


@dataclass(frozen=True)
class Part:
    """One Hugging Face weight: its name (`*` is the layer) and its shape by names of sizes."""

    name: str
    shape: tuple[str, ...]


@dataclass(frozen=True)
class Mapping:
    """One core weight, made of the Hugging Face weights `parts`.

    The parts' rows lie one after the other; where `by_group`, the rows of q, k and v of one query
    group lie side by side, group after group. Rows that fill the padded vocabulary have no part.
    """

    megatron: str
    parts: tuple[Part, ...]
    by_group: bool = False


TABLE = (
    Mapping(EMBEDDING, (Part("model.embed_tokens.weight", ("vocab", "hidden")),)),
    Mapping(
        "decoder.layers.*.self_attention.linear_qkv.layer_norm_weight",
        (Part("model.layers.*.input_layernorm.weight", ("hidden",)),),
    ),
    Mapping(
        "decoder.layers.*.self_attention.linear_qkv.weight",
        (
            Part("model.layers.*.self_attn.q_proj.weight", ("query", "hidden")),
            Part("model.layers.*.self_attn.k_proj.weight", ("key_value", "hidden")),
            Part("model.layers.*.self_attn.v_proj.weight", ("key_value", "hidden")),
        ),
        by_group=True,
    ),
    Mapping(
        "decoder.layers.*.self_attention.linear_proj.weight",
        (Part("model.layers.*.self_attn.o_proj.weight", ("hidden", "query")),),
    ),
    Mapping(
        "decoder.layers.*.mlp.linear_fc1.layer_norm_weight",
        (Part("model.layers.*.post_attention_layernorm.weight", ("hidden",)),),
    ),
    Mapping(
        "decoder.layers.*.mlp.linear_fc1.weight",
        (
            Part("model.layers.*.mlp.gate_proj.weight", ("ffn", "hidden")),
            Part("model.layers.*.mlp.up_proj.weight", ("ffn", "hidden")),
        ),
    ),
    Mapping(
        "decoder.layers.*.mlp.linear_fc2.weight",
        (Part("model.layers.*.mlp.down_proj.weight", ("hidden", "ffn")),),
    ),
    Mapping("decoder.final_layernorm.weight", (Part("model.norm.weight", ("hidden",)),)),
    Mapping(OUTPUT, (Part("lm_head.weight", ("vocab", "hidden")),)),
)

# Objects without content that core's modules, local and Transformer Engine's, ask a checkpoint for.
_STATEFUL_IN_LAYER = (
    "self_attention.core_attention",
    "self_attention.linear_qkv",
    "self_attention.linear_proj",
    "mlp.linear_fc1",
    "mlp.linear_fc2",
)


@dataclass(frozen=True)
class Weight:
    """A core weight of one layer (`layer` is None outside the layers) and its parts by name."""

    mapping: Mapping
    layer: int | None

    @property
    def megatron(self) -> str:
        """For messages and reports: the key with the layer number in it."""
        return numbered(self.mapping.megatron, self.layer)

    @property
    def parts(self) -> list[str]:
        return [numbered(part.name, self.layer) for part in self.mapping.parts]


def weights(num_layers: int) -> Iterator[Weight]:
    """Every weight in the order of computation: embedding, layer by layer, final norm, output."""
    in_layers = [mapping for mapping in TABLE if "*" in mapping.megatron]
    first, last = TABLE.index(in_layers[0]), TABLE.index(in_layers[-1])
    yield from (Weight(mapping, None) for mapping in TABLE[:first])
    for layer in range(num_layers):
        yield from (Weight(mapping, layer) for mapping in in_layers)
    yield from (Weight(mapping, None) for mapping in TABLE[last + 1 :])


def numbered(name: str, layer: int | None) -> str:
    """`name` with the layer number in place of `*`."""
    return name if layer is None else name.replace("*", str(layer))


def stacked(name: str) -> str:
    """Core's checkpoint key: all layers under one name, without a number."""
    return name.replace(".*", "")


def part_shapes(mapping: Mapping, sizes: ModelConfig) -> list[tuple[int, ...]]:
    """Shapes of the Hugging Face weights, with the true vocabulary."""
    of = {
        "vocab": sizes.vocab_size,
        "hidden": sizes.hidden_size,
        "ffn": sizes.ffn_hidden_size,
        "query": sizes.num_attention_heads * sizes.kv_channels,
        "key_value": sizes.num_query_groups * sizes.kv_channels,
    }
    return [tuple(of[name] for name in part.shape) for part in mapping.parts]


def megatron_shape(mapping: Mapping, sizes: ModelConfig) -> tuple[int, ...]:
    """Shape of the core weight of one layer, with the padded vocabulary."""
    shapes = part_shapes(mapping, sizes)
    if mapping.parts[0].shape[0] == "vocab":
        return (sizes.padded_vocab_size, *shapes[0][1:])
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def extra_state_keys(num_layers: int) -> list[str]:
    """Keys of the objects without content, in core's naming of sharded objects."""
    in_layers = [
        f"decoder.layers.{module}._extra_state/shard_{layer}_{num_layers}"
        for layer in range(num_layers)
        for module in _STATEFUL_IN_LAYER
    ]
    return [*in_layers, "decoder.final_layernorm._extra_state/shard_0_1"]


def count_parameters(sizes: ModelConfig) -> int:
    """Parameters of the exported model."""
    return sum(
        math.prod(shape)
        for weight in weights(sizes.num_layers)
        for shape in part_shapes(weight.mapping, sizes)
    )
