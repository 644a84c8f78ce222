"""Sizes of a LLaMA-2 style decoder and the named presets."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Optional

import yaml

from megatron_biollm.config import UserError, option

PRESETS = Path(__file__).parent / "presets"
# What the shapes of weights follow from, the padding of the vocabulary left out, and what decides
# besides them what weights mean.
SIZES = (
    "num_layers",
    "hidden_size",
    "num_attention_heads",
    "num_query_groups",
    "ffn_hidden_size",
    "vocab_size",
)
CONSTANTS = ("rotary_base", "norm_epsilon")
TRANSFORMER_IMPLS = ("auto", "transformer_engine", "local")


@dataclass
class ModelConfig:
    """LLaMA-2 architecture: RMSNorm pre-norm, grouped-query attention, SwiGLU, RoPE, no biases,
    untied embeddings (Touvron et al. 2023, https://arxiv.org/abs/2307.09288).

    `preset` fills every field left unset; a field that is set wins over the preset.

    Raises:
        UserError: unknown preset, missing size, or sizes that do not divide.
    """

    preset: Optional[str] = option(None, "named sizes: tiny, 1b, 3b, 7b or 70b")
    num_layers: Optional[int] = option(None, "transformer layers")
    hidden_size: Optional[int] = option(None, "width of the residual stream")
    num_attention_heads: Optional[int] = option(None, "query heads")
    num_query_groups: Optional[int] = option(None, "key/value heads (grouped-query attention)")
    ffn_hidden_size: Optional[int] = option(None, "width of the SwiGLU feed-forward layer")
    seq_length: Optional[int] = option(None, "tokens per training sequence")
    max_position_embeddings: Optional[int] = option(
        None, "longest context written to the export; seq_length if unset"
    )
    vocab_size: Optional[int] = option(
        None, "true vocabulary size; the run's tokenizer decides it if unset"
    )
    make_vocab_size_divisible_by: int = option(
        1024, "pad the vocabulary to this multiple, the same for every layout (128 x TP 8)"
    )
    rotary_base: int = option(10000, "RoPE base frequency")
    norm_epsilon: float = option(1e-5, "epsilon of RMSNorm")
    init_method_std: float = option(0.02, "standard deviation of the initial weights")
    transformer_impl: str = option(
        "auto", "layers by name: transformer_engine, local, or auto (which says why)"
    )

    def __post_init__(self) -> None:
        if self.preset is not None:
            self._fill_from_preset()
        if self.max_position_embeddings is None:
            self.max_position_embeddings = self.seq_length
        if self.num_query_groups is None:
            self.num_query_groups = self.num_attention_heads
        self._check_present()
        self._check_sizes()

    @property
    def kv_channels(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding. Independent of the tensor-parallel size, so that a checkpoint
        loads into every layout (Megatron-LM pads to 128 x TP and cannot)."""
        multiple = self.make_vocab_size_divisible_by
        return -(-self.vocab_size // multiple) * multiple

    def _fill_from_preset(self) -> None:
        path = PRESETS / f"{self.preset}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
            raise UserError(f"model.preset={self.preset} does not exist; choose one of {known}")
        preset = yaml.safe_load(path.read_text())
        for field in fields(self):
            if field.name in preset and getattr(self, field.name) is None:
                setattr(self, field.name, preset[field.name])

    def _check_present(self) -> None:
        for name in (
            "num_layers",
            "hidden_size",
            "num_attention_heads",
            "num_query_groups",
            "ffn_hidden_size",
            "seq_length",
            "max_position_embeddings",
            "make_vocab_size_divisible_by",
        ):
            value = getattr(self, name)
            if value is None:
                raise UserError(f"model.{name} is not set; set it, or choose a model.preset")
            if value < 1:
                raise UserError(f"model.{name}={value} must be at least 1")
        if self.vocab_size is not None and self.vocab_size < 1:
            raise UserError(f"model.vocab_size={self.vocab_size} must be at least 1")

    def _check_sizes(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"model.hidden_size={self.hidden_size} is not divisible by "
                f"model.num_attention_heads={self.num_attention_heads}; change one of them"
            )
        if self.kv_channels % 2:
            raise UserError(
                f"a head of width {self.kv_channels} (hidden_size / num_attention_heads) is odd; "
                f"RoPE rotates pairs, so make it even"
            )
        if self.num_attention_heads % self.num_query_groups:
            raise UserError(
                f"model.num_attention_heads={self.num_attention_heads} is not divisible by "
                f"model.num_query_groups={self.num_query_groups}; each group serves equally many "
                f"query heads"
            )
        if self.transformer_impl not in TRANSFORMER_IMPLS:
            raise UserError(
                f"model.transformer_impl={self.transformer_impl} is unknown; "
                f"choose one of {', '.join(TRANSFORMER_IMPLS)}"
            )
