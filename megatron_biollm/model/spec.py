"""Transformer layers by name: Transformer Engine's fused ones, or local ones on plain torch.

The local layers answer three things that core's own local modules refuse: RMSNorm under sequence
parallelism, packed sequences, and attention under context parallelism.
"""

import contextlib
import importlib.util
from typing import Any, Optional

import torch
from megatron.core.models.gpt.gpt_layer_specs import (
    get_gpt_layer_local_spec,
    get_gpt_layer_with_transformer_engine_spec,
)
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import (
    TransformerBlockSubmodules,
    get_num_layers_to_build,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.nn.functional import scaled_dot_product_attention

from megatron_biollm.config import UserError
from megatron_biollm.device.cuda_kernels import attention_order, fits_flash, packed_attention


def choose_transformer_impl(name: str, device_kind: str) -> tuple[str, str]:
    """Resolves `auto` and checks the rest.

    Returns:
        The name (`transformer_engine` or `local`) and the reason for it, for the log.

    Raises:
        UserError: Transformer Engine is asked for but absent, or asked for on the CPU.
    """
    found = importlib.util.find_spec("transformer_engine") is not None
    if name == "local":
        return "local", "asked for by model.transformer_impl"
    if name == "transformer_engine":
        if device_kind != "cuda" or not found:
            missing = "a GPU" if device_kind != "cuda" else "the package transformer-engine"
            raise UserError(
                f"model.transformer_impl=transformer_engine needs {missing}, which is absent "
                f"here; use model.transformer_impl=local, or on a GPU machine "
                f"pip install 'megatron_biollm[cuda]'"
            )
        return name, "asked for by model.transformer_impl"
    if device_kind == "cuda" and found:
        return "transformer_engine", "auto: a GPU and transformer-engine are present"
    lacking = "the run is on the CPU" if device_kind != "cuda" else "transformer-engine is absent"
    return "local", f"auto: {lacking}"


def build_block_spec(
    transformer_impl: str, config: TransformerConfig, vp_stage: Optional[int]
) -> TransformerBlockSubmodules | ModuleSpec:
    """The layers of one model chunk for core's `GPTModel`.

    Args:
        transformer_impl: `transformer_engine` or `local`.
        config: core's configuration.
        vp_stage: index of the model chunk on this rank, None without interleaving.
    """
    if transformer_impl == "transformer_engine":
        return get_gpt_layer_with_transformer_engine_spec()
    layer = get_gpt_layer_local_spec(normalization="RMSNorm")
    layer.submodules.input_layernorm = RMSNorm
    layer.submodules.pre_mlp_layernorm = RMSNorm
    layer.submodules.self_attention.submodules.core_attention = SDPAttention
    num_layers = get_num_layers_to_build(config, vp_stage=vp_stage)
    return TransformerBlockSubmodules(layer_specs=[layer] * num_layers, layer_norm=RMSNorm)


class RMSNorm(torch.nn.RMSNorm):
    """Root-mean-square norm (Zhang & Sennrich 2019, https://arxiv.org/abs/1910.07467).

    Its weight is marked `sequence_parallel`, so that core adds up the gradients of the ranks,
    each of which has seen only its part of the sequence.
    """

    def __init__(
        self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **kwargs: Any
    ) -> None:
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype)
        self.weight.sequence_parallel = config.sequence_parallel


class SDPAttention(MegatronModule):
    """Core attention on torch's scaled dot product, with grouped queries.

    Shapes below: s sequence (local to the rank under context parallelism), b batch, n query heads
    and g key/value heads of this tensor-parallel rank, d head width, t packed tokens.

    Under context parallelism rank r of c holds chunks r and 2c-1-r of 2c, which balances causal
    attention; keys and values are gathered along the sequence, queries stay.
    """

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        attention_dropout: Optional[float] = None,
        softmax_scale: Optional[float] = None,
        cp_comm_type: Optional[str] = None,
        pg_collection: Optional[ProcessGroupCollection] = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config=config)
        self.softmax_scale = softmax_scale
        self.cp_group = pg_collection.cp if config.context_parallel_size > 1 else None
        self.attend_in_documents = packed_attention()

    def forward(
        self,
        query_sbnd: torch.Tensor,
        key_sbgd: torch.Tensor,
        value_sbgd: torch.Tensor,
        attention_mask: Optional[torch.Tensor],
        attn_mask_type: Optional[AttnMaskType] = None,
        attention_bias: Optional[torch.Tensor] = None,
        packed_seq_params: Optional[PackedSeqParams] = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Causal attention; returns [s, b, n*d], or [t, n*d] for packed sequences ([t, n, d] in).

        `attention_mask` (bool, True hides) is used when given; causality is implied otherwise.
        """
        if value_sbgd.requires_grad and value_sbgd.device.type != "cpu":
            # A view of the joint product, all of which it would keep until the backward pass.
            value_sbgd = value_sbgd.contiguous()
        if packed_seq_params is not None:
            return self._packed(query_sbnd, key_sbgd, value_sbgd, packed_seq_params)
        if self.cp_group is not None:
            key_sbgd = _gather_sequence(key_sbgd, self.cp_group)
            value_sbgd = _gather_sequence(value_sbgd, self.cp_group)
        query, key, value = (_heads_first(x) for x in (query_sbnd, key_sbgd, value_sbgd))
        if self.cp_group is not None:
            context = self._balanced_chunks(query, key, value)
        else:
            context = self._attend(query, key, value, _visible(attention_mask, query, key))
        return context.permute(2, 0, 1, 3).flatten(2)

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        visible: Optional[torch.Tensor],
    ) -> torch.Tensor:
        # One new token sees every key; a mask would only repeat that.
        causal = visible is None and query.shape[2] > 1
        # cuDNN plans anew for every shape: they repeat in training, not in generation.
        ordered = self.training and visible is None
        with attention_order(query.device) if ordered else contextlib.nullcontext():
            return scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=visible,
                is_causal=causal,
                scale=self.softmax_scale,
                enable_gqa=query.shape[1] != key.shape[1],
            )

    def _balanced_chunks(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """Attends each of the rank's two query chunks to its own prefix of the keys."""
        rank, size = self.cp_group.rank(), self.cp_group.size()
        parts = []
        for chunk, part in zip((rank, 2 * size - 1 - rank), query.chunk(2, dim=2), strict=True):
            stop = (chunk + 1) * part.shape[2]
            keys, values = key[:, :, :stop], value[:, :, :stop]
            visible = _lower_right_causal(part.shape[2], stop, part.device)
            parts.append(self._attend(part, keys, values, visible))
        return torch.cat(parts, dim=2)

    def _packed(
        self,
        query_tnd: torch.Tensor,
        key_tgd: torch.Tensor,
        value_tgd: torch.Tensor,
        packed: PackedSeqParams,
    ) -> torch.Tensor:
        longest = packed.max_seqlen_q
        if self.attend_in_documents and longest is not None and fits_flash(query_tnd):
            tensors, starts = (query_tnd, key_tgd, value_tgd), packed.cu_seqlens_q
            return self.attend_in_documents(*tensors, starts, longest, self.softmax_scale).flatten(
                1
            )
        # Document by document: one mask over the whole row would cost the square of the row.
        lengths = packed.cu_seqlens_q.diff().tolist()
        parts = zip(*(x.split(lengths) for x in (query_tnd, key_tgd, value_tgd)), strict=True)
        context = [
            self._attend(*(_heads_first(x[:, None]) for x in part), visible=None) for part in parts
        ]
        return torch.cat(context, dim=2)[0].transpose(0, 1).flatten(1)


def _heads_first(x_sbnd: torch.Tensor) -> torch.Tensor:
    x_bnsd = x_sbnd.permute(1, 2, 0, 3)
    # The CPU kernel is faster on heads whose rows lie together than the copy costs.
    return x_bnsd.contiguous() if x_bnsd.device.type == "cpu" else x_bnsd


def _visible(
    attention_mask: Optional[torch.Tensor], query: torch.Tensor, key: torch.Tensor
) -> Optional[torch.Tensor]:
    if attention_mask is not None:
        return ~attention_mask
    new, seen = query.shape[2], key.shape[2]
    if new in (1, seen):
        return None
    return _lower_right_causal(new, seen, query.device)


def _lower_right_causal(queries: int, keys: int, device: torch.device) -> torch.Tensor:
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def _gather_sequence(x: torch.Tensor, group: torch.distributed.ProcessGroup) -> torch.Tensor:
    """All chunks of the sequence in order; the backward pass reduce-scatters. [s, ...]"""
    size = group.size()
    chunks = gather_from_sequence_parallel_region(x.contiguous(), group=group).chunk(2 * size)
    early, late = chunks[0::2], chunks[1::2]
    return torch.cat((*early, *reversed(late)))
