"""The same network in transformers, for comparison: plain PyTorch that shares no code with core."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from megatron_biollm.model.config import ModelConfig
from megatron_biollm.training.step import Batch


def llama(sizes: ModelConfig, weights: dict[str, torch.Tensor]) -> LlamaForCausalLM:
    """transformers' model in fp32 with weights in its own names."""
    config = LlamaConfig(
        vocab_size=sizes.padded_vocab_size,
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.ffn_hidden_size,
        num_hidden_layers=sizes.num_layers,
        num_attention_heads=sizes.num_attention_heads,
        num_key_value_heads=sizes.num_query_groups,
        max_position_embeddings=sizes.seq_length,
        rms_norm_eps=sizes.norm_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": float(sizes.rotary_base)},
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    model.load_state_dict(weights)
    return model.float()


def summed_token_loss(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Cross-entropy summed over the tokens that count.

    Documents begin where the position is 0, and see nothing of the ones before.
    """
    document = (batch["position_ids"] == 0).cumsum(dim=1)
    causal = torch.ones(document.shape[1], document.shape[1], dtype=torch.bool).tril()
    visible = causal & (document[:, :, None] == document[:, None, :])
    logits = model(
        batch["tokens"], attention_mask=visible[:, None], position_ids=batch["position_ids"]
    ).logits
    token_loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch["labels"].flatten(), reduction="none"
    )
    return (token_loss * batch["loss_mask"].flatten()).sum()


def to_hugging_face(core: dict[str, torch.Tensor], sizes: ModelConfig) -> dict[str, torch.Tensor]:
    """Weights, or their gradients, of core's local layers under transformers' names.

    Written out here once more, so that a mistake in `conversion/names.py` cannot hide itself.
    """
    out = {
        "model.embed_tokens.weight": core["embedding.word_embeddings.weight"],
        "model.norm.weight": core["decoder.final_layernorm.weight"],
        "lm_head.weight": core["output_layer.weight"],
    }
    groups, head = sizes.num_query_groups, sizes.kv_channels
    heads_per_group = sizes.num_attention_heads // groups
    for layer in range(sizes.num_layers):
        ours, theirs = f"decoder.layers.{layer}.", f"model.layers.{layer}."
        qkv = core[ours + "self_attention.linear_qkv.weight"]
        qkv = qkv.view(groups, heads_per_group + 2, head, sizes.hidden_size)
        gate, up = core[ours + "mlp.linear_fc1.weight"].chunk(2)
        out |= {
            theirs + "input_layernorm.weight": core[ours + "input_layernorm.weight"],
            theirs + "self_attn.q_proj.weight": qkv[:, :-2].flatten(0, 2),
            theirs + "self_attn.k_proj.weight": qkv[:, -2].flatten(0, 1),
            theirs + "self_attn.v_proj.weight": qkv[:, -1].flatten(0, 1),
            theirs + "self_attn.o_proj.weight": core[ours + "self_attention.linear_proj.weight"],
            theirs + "post_attention_layernorm.weight": core[ours + "pre_mlp_layernorm.weight"],
            theirs + "mlp.gate_proj.weight": gate,
            theirs + "mlp.up_proj.weight": up,
            theirs + "mlp.down_proj.weight": core[ours + "mlp.linear_fc2.weight"],
        }
    return {name: value.clone() for name, value in out.items()}


def adapters_of(
    core: dict[str, torch.Tensor], sizes: ModelConfig
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A and B of core's adapters by transformers' layers; one A serves all parts of a layer."""
    names = {
        "self_attention.linear_qkv": ["q_proj", "k_proj", "v_proj"],
        "self_attention.linear_proj": ["o_proj"],
        "mlp.linear_fc1": ["gate_proj", "up_proj"],
        "mlp.linear_fc2": ["down_proj"],
    }
    found = {}
    for layer in range(sizes.num_layers):
        for path, parts in names.items():
            ours = f"decoder.layers.{layer}.{path}_lora"
            block = "self_attn" if "attention" in path else "mlp"
            rows = parts_of_rows(path, core[f"{ours}.b"], sizes)
            for part, b in zip(parts, rows, strict=True):
                found[f"model.layers.{layer}.{block}.{part}"] = (core[f"{ours}.a"], b)
    return found


def parts_of_rows(path: str, rows: torch.Tensor, sizes: ModelConfig) -> list[torch.Tensor]:
    """Rows of one of core's layers as transformers divides them."""
    if path.endswith("fc1"):
        return list(rows.chunk(2))
    if not path.endswith("qkv"):
        return [rows]
    by_group = rows.view(sizes.num_query_groups, -1, sizes.kv_channels, rows.shape[1])
    parts = (by_group[:, :-2], by_group[:, -2:-1], by_group[:, -1:])
    return [part.flatten(0, 2) for part in parts]
