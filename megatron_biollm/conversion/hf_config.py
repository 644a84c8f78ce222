"""Hugging Face's `config.json` and `generation_config.json` of a LLaMA, both directions.

Only what core's model of this program computes is taken: everything else is refused by name
instead of being dropped.
"""

import json
from pathlib import Path
from typing import Any

import torch

from megatron_biollm.config import UserError
from megatron_biollm.model.config import ModelConfig

ARCHITECTURE = "LlamaForCausalLM"

# Fields that must have one of these values where they are present, and what to do otherwise.
_ONLY = {
    "model_type": ("llama",),
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "rope_scaling": (None,),
    "pretraining_tp": (1,),
    "quantization_config": (None,),
}


def read_hf_config(folder: Path | str) -> dict[str, Any]:
    """The `config.json` of a folder, checked to describe a model that can be converted.

    Raises:
        UserError: no readable config.json, another architecture, or a feature without an equal in
            this program's model (biases, scaled RoPE, another activation, quantised weights).
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} has no config.json; give a Hugging Face model folder")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable JSON ({error}); copy it again") from error
    architectures = config.get("architectures") or [ARCHITECTURE]
    if architectures != [ARCHITECTURE]:
        raise UserError(f"{path} describes {architectures}; only {ARCHITECTURE} can be converted")
    for name, allowed in _ONLY.items():
        value = config.get(name, allowed[0])
        if value not in allowed:
            raise UserError(
                f"{path} has {name}={value!r}; this program's model computes {allowed[0]!r} only, "
                f"so its logits would differ: such a model cannot be converted"
            )
    _check_rope(path, config)
    return config


def sizes_from_hf(config: dict[str, Any], vocab_size: int | None = None) -> ModelConfig:
    """Sizes of the model that `config` (from `read_hf_config`) describes.

    vocab_size: the true vocabulary where it is not the config's own.

    Raises:
        UserError: a size is missing or they do not fit each other.
    """
    try:
        sizes = ModelConfig(
            num_layers=config["num_hidden_layers"],
            hidden_size=config["hidden_size"],
            num_attention_heads=config["num_attention_heads"],
            num_query_groups=config.get("num_key_value_heads") or config["num_attention_heads"],
            ffn_hidden_size=config["intermediate_size"],
            seq_length=config.get("max_position_embeddings", 2048),
            vocab_size=vocab_size or config["vocab_size"],
            rotary_base=_rope_theta(config),
            norm_epsilon=config.get("rms_norm_eps", 1e-6),
            init_method_std=config.get("initializer_range", 0.02),
        )
    except KeyError as error:
        raise UserError(f"config.json lacks {error}; it does not describe a whole LLaMA") from error
    head_dim = config.get("head_dim") or sizes.kv_channels
    if head_dim != sizes.kv_channels:
        raise UserError(
            f"config.json has head_dim={head_dim}, but hidden_size / num_attention_heads = "
            f"{sizes.kv_channels}; this program's model has no other head width"
        )
    return sizes


def hf_config(
    sizes: ModelConfig, dtype: torch.dtype, bos: int | None, eos: int | None, pad: int | None
) -> dict[str, Any]:
    """`config.json` in the spelling that every transformers since 4.31 and vLLM read."""
    return {
        "architectures": [ARCHITECTURE],
        "model_type": "llama",
        "vocab_size": sizes.vocab_size,
        "hidden_size": sizes.hidden_size,
        "intermediate_size": sizes.ffn_hidden_size,
        "num_hidden_layers": sizes.num_layers,
        "num_attention_heads": sizes.num_attention_heads,
        "num_key_value_heads": sizes.num_query_groups,
        "head_dim": sizes.kv_channels,
        "hidden_act": "silu",
        "max_position_embeddings": sizes.max_position_embeddings,
        "rms_norm_eps": sizes.norm_epsilon,
        "rope_theta": float(sizes.rotary_base),
        "rope_scaling": None,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "initializer_range": sizes.init_method_std,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "use_cache": True,
    }


def generation_config(
    bos: int | None, eos: int | None, pad: int | None, stop: int | None = None
) -> dict[str, Any]:
    """`generation_config.json`; what is None is left to the library. stop: ends an answer."""
    ends = eos if stop in (None, eos) else [stop, eos]
    ids = {"bos_token_id": bos, "eos_token_id": ends, "pad_token_id": pad}
    return {"_from_model_config": True, **{k: v for k, v in ids.items() if v is not None}}


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    # transformers 5 nests what earlier versions keep beside the other fields.
    return config.get("rope_parameters") or {}


def _rope_theta(config: dict[str, Any]) -> int:
    theta = _rope(config).get("rope_theta", config.get("rope_theta", 10000.0))
    if theta != int(theta):
        raise UserError(f"config.json has rope_theta={theta}; core's rotary_base is a whole number")
    return int(theta)


def _check_rope(path: Path, config: dict[str, Any]) -> None:
    kind = _rope(config).get("rope_type", "default")
    partial = _rope(config).get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    if kind != "default" or partial != 1.0:
        raise UserError(
            f"{path} has rope_type={kind!r}, partial_rotary_factor={partial}; this program's model "
            f"rotates whole heads without scaling: such a model cannot be converted"
        )
