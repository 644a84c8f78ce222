"""A small model with lively logits, in any layout, for functions that run on test workers."""

import dataclasses
from pathlib import Path

import torch

from megatron_biollm.device.runtime import select_device
from megatron_biollm.generation.generator import Generator
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.parallel.parallelize import ParallelModel, parallelize
from megatron_biollm.parallel.process_groups import create_process_groups
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer
from megatron_biollm.tokenizer.train import train_tokenizer

CONTEXT = 64
TEXTS = [
    "Patients with hepatitis were treated with interferon (12.5 mg) for 24 weeks.",
    "The cells of the liver express the receptor; expression was reduced after treatment.",
    "  Methods:\n\tRandomised, double-blind trial of 120 patients with neuropathy.",
]


def train_small_tokenizer(folder: Path) -> Path:
    """A small byte-fallback vocabulary: signs that no text above has become bytes."""
    return train_tokenizer(TEXTS * 20, 512, folder / "small")


def sizes_for(vocab_size: int) -> ModelConfig:
    return ModelConfig(
        num_layers=4,
        hidden_size=64,
        num_attention_heads=8,
        num_query_groups=2,
        ffn_hidden_size=96,
        seq_length=CONTEXT,
        vocab_size=vocab_size,
        make_vocab_size_divisible_by=256,
        # So large that the likeliest token is clearly so, and not the last one again.
        init_method_std=0.3,
    )


def layout(tp: int = 1, pp: int = 1, **options) -> ParallelConfig:
    return ParallelConfig(tensor_model_parallel_size=tp, pipeline_model_parallel_size=pp, **options)


def build_model(
    vocab_size: int, parallel: ParallelConfig, trainable: bool = False, bf16: bool = False
) -> ParallelModel:
    """The same weights in every layout, since they follow from the seed alone."""
    return parallelize(
        sizes_for(vocab_size),
        parallel,
        select_device("cpu"),
        create_process_groups(parallel),
        bf16=bf16,
        seed=5,
        trainable=trainable,
    )


def tokenizer_of(folder: Path):
    return build_tokenizer(TokenizerConfig(tokenizer_model=str(folder)))


def build_generator(
    folder: Path, parallel: ParallelConfig, trainable: bool = False, bf16: bool = False
) -> Generator:
    tokenizer = tokenizer_of(folder)
    model = build_model(tokenizer.vocab_size, parallel, trainable, bf16)
    return Generator(model, tokenizer, CONTEXT)


def transformers_model(vocab_size: int):
    """The same weights in transformers' model; needs a world of one process."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = sizes_for(vocab_size)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=sizes.hidden_size,
            intermediate_size=sizes.ffn_hidden_size,
            num_hidden_layers=sizes.num_layers,
            num_attention_heads=sizes.num_attention_heads,
            num_key_value_heads=sizes.num_query_groups,
            max_position_embeddings=CONTEXT,
            rms_norm_eps=sizes.norm_epsilon,
            rope_parameters={"rope_type": "default", "rope_theta": sizes.rotary_base},
            tie_word_embeddings=False,
            attn_implementation="eager",
        )
    )
    (chunk,) = build_model(vocab_size, layout()).bare_chunks
    model.load_state_dict(_llama_weights(chunk.state_dict(), sizes))
    return model.eval()


def _llama_weights(ours: dict[str, torch.Tensor], sizes: ModelConfig) -> dict[str, torch.Tensor]:
    vocabulary = slice(sizes.vocab_size)
    theirs = {
        "model.embed_tokens.weight": ours["embedding.word_embeddings.weight"][vocabulary],
        "model.norm.weight": ours["decoder.final_layernorm.weight"],
        "lm_head.weight": ours["output_layer.weight"][vocabulary],
    }
    per_group = sizes.num_attention_heads // sizes.num_query_groups
    for layer in range(sizes.num_layers):
        old, new = f"decoder.layers.{layer}.", f"model.layers.{layer}."
        qkv = ours[old + "self_attention.linear_qkv.weight"]
        # Each group holds its query heads, then its key, then its value.
        qkv = qkv.view(sizes.num_query_groups, per_group + 2, sizes.kv_channels, sizes.hidden_size)
        parts = qkv.split([per_group, 1, 1], dim=1)
        for name, part in zip("qkv", parts, strict=True):
            theirs[f"{new}self_attn.{name}_proj.weight"] = part.reshape(-1, sizes.hidden_size)
        gate, up = ours[old + "mlp.linear_fc1.weight"].chunk(2)
        theirs[new + "self_attn.o_proj.weight"] = ours[old + "self_attention.linear_proj.weight"]
        theirs[new + "mlp.gate_proj.weight"], theirs[new + "mlp.up_proj.weight"] = gate, up
        theirs[new + "mlp.down_proj.weight"] = ours[old + "mlp.linear_fc2.weight"]
        theirs[new + "input_layernorm.weight"] = ours[old + "input_layernorm.weight"]
        theirs[new + "post_attention_layernorm.weight"] = ours[old + "pre_mlp_layernorm.weight"]
    return theirs


def plain(rows) -> list[dict]:
    """Continuations as values that compare and travel between processes."""
    return [dataclasses.asdict(row) for row in rows]
