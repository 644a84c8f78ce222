"""The layers of a GPU run, reduced to what they allocate and what they keep.

Transformer Engine cannot be imported without a GPU, and torch's CPU kernels keep other tensors
than CUDA's. The modules here stand for Transformer Engine's fused ones: they return tensors of the
same shapes and save for the backward pass what Transformer Engine 2 saves, by its source
(https://github.com/NVIDIA/TransformerEngine, transformer_engine/pytorch):

- RMSNorm (`module/layernorm_linear.py`): its input and 1/rms per token (fp32); the linear layer
  after it saves the norm's output, under sequence parallelism this rank's part of it alone.
- attention (`attention/`, cuDNN or flash): query, key, value, output, and the log of the softmax's
  denominator per token and head (fp32).
- rotary embedding, SwiGLU (core's `fusions/fused_bias_swiglu.py`): the angles; the input.
- weight gradients are added to the fp32 main gradients inside the matrix product.

The loss is the project's own (`device/vocab_loss.py`), with the parts that are compiled on a GPU
taken to hold nothing. Everything else (linear layers, embedding, schedule, reductions, optimizer)
is megatron-core's own code.
"""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Optional
from unittest import mock

import torch
from megatron.core import optimizer as core_optimizer
from megatron.core.models.common.embeddings import rope_utils
from megatron.core.models.common.language_module import language_module
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.optimizer import clip_grads
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel import layers
from megatron.core.transformer import mlp
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_block import (
    TransformerBlockSubmodules,
    get_num_layers_to_build,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.utils.flop_counter import register_flop_formula

from megatron_biollm.device.cpu import cuda_answered_by_cpu
from megatron_biollm.device.vocab_loss import vocab_cross_entropy
from megatron_biollm.model import gpt
from megatron_biollm.parallel import parallelize
from megatron_biollm.training.optimizer import group_step_adam

REHEARSED = "what Transformer Engine's layers keep, by its source"


@contextlib.contextmanager
def gpu_kernels() -> Iterator[None]:
    """Inside, `parallelize` builds the layers above, and core's fused kernels are those."""
    patches = (
        (parallelize, "choose_transformer_impl", _choose),
        (gpt, "build_block_spec", block_spec),
        (rope_utils, "fused_apply_rotary_pos_emb", rotate),
        (rope_utils, "_apply_rotary_pos_emb_bshd", rotate),
        (mlp, "bias_swiglu_impl", swiglu),
        (language_module, "fused_vocab_parallel_cross_entropy", loss),
        (layers, "fused_weight_gradient_mlp_cuda", _WeightGradients),
        (core_optimizer, "USING_PYTORCH_OPTIMIZER", True),
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(cuda_answered_by_cpu())
        for target, name, value in patches:
            stack.enter_context(mock.patch.object(target, name, value))
        stack.enter_context(group_step_adam())
        stack.enter_context(norm_of_gradients())
        # Core compiles parts of the loss; compiled or not, they keep the same tensors.
        with torch.compiler.set_stance("force_eager"):
            yield


def norm_of_gradients() -> AbstractContextManager:
    """The norm over many tensors in one kernel; core's own for CPUs reads its numbers."""
    return mock.patch.object(clip_grads, "l2_norm_impl", _norm_of_all)


def block_spec(
    transformer_impl: str, config: TransformerConfig, vp_stage: Optional[int]
) -> TransformerBlockSubmodules:
    """The layers of one model chunk, in place of `model.spec.build_block_spec`."""
    layer = get_gpt_layer_local_spec(normalization="RMSNorm")
    layer.submodules.input_layernorm = RMSNorm
    layer.submodules.pre_mlp_layernorm = RMSNorm
    layer.submodules.self_attention.submodules.core_attention = FlashAttention
    num_layers = get_num_layers_to_build(config, vp_stage=vp_stage)
    return TransformerBlockSubmodules(layer_specs=[layer] * num_layers, layer_norm=RMSNorm)


class RMSNorm(torch.nn.Module):
    """Root-mean-square norm in one kernel."""

    def __init__(
        self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **kwargs: Any
    ) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(hidden_size, dtype=config.params_dtype))
        self.weight.sequence_parallel = config.sequence_parallel

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _Norm.apply(x, self.weight)


class FlashAttention(MegatronModule):
    """Attention that never holds its matrix; under context parallelism keys and values travel
    around a ring of the ranks, and each rank keeps its own."""

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        pg_collection: Optional[ProcessGroupCollection] = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config=config)
        self.cp_group = pg_collection.cp if config.context_parallel_size > 1 else None

    def forward(
        self,
        query_sbnd: torch.Tensor,
        key_sbgd: torch.Tensor,
        value_sbgd: torch.Tensor,
        attention_mask: Optional[torch.Tensor],
        **kwargs: Any,
    ) -> torch.Tensor:
        return _Attention.apply(query_sbnd, key_sbgd, value_sbgd.contiguous(), self.cp_group)


def rotate(t: torch.Tensor, freqs: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Rotary embedding of [s, b, n, d] in one kernel."""
    return _Rotation.apply(t, freqs)


def swiglu(x: torch.Tensor, bias: None = None, *unused: Any) -> torch.Tensor:
    """silu(first half) * second half of the last axis, in one kernel."""
    return _SwiGLU.apply(x)


def loss(
    logits: torch.Tensor, target: torch.Tensor, group: torch.distributed.ProcessGroup
) -> torch.Tensor:
    """The cross-entropy of a run on a GPU, in which each part of the logits is one kernel."""
    return vocab_cross_entropy(logits, target, group, _normaliser, _softmax_in_place)


def _normaliser(logits_nv: torch.Tensor, column_n1: torch.Tensor) -> torch.Tensor:
    return logits_nv.new_empty(logits_nv.shape[0], dtype=torch.float32)


def _softmax_in_place(*args: torch.Tensor) -> None:
    pass


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight, x.new_empty(x.shape[:-1], dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(weight)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        ring: Optional[torch.distributed.ProcessGroup],
    ) -> torch.Tensor:
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
        normaliser = query.new_empty(query.shape[:-1], dtype=torch.float32)
        _around(ring, key, value)
        torch.ops.rehearsal.attention(query, 1 if ring is None else ring.size(), 2)
        ctx.save_for_backward(query, key, value, out, normaliser)
        ctx.ring = ring
        return out.flatten(2)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, _, _ = ctx.saved_tensors
        results = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        _around(ctx.ring, key, value)
        _around(ctx.ring, *results[1:])
        torch.ops.rehearsal.attention(query, 1 if ctx.ring is None else ctx.ring.size(), 5)
        return *results, None


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, t: torch.Tensor, freqs: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(freqs)
        return torch.empty_like(t, memory_format=torch.contiguous_format)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.empty_like(grad), None


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.new_empty((*x.shape[:-1], x.shape[-1] // 2))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(ctx.saved_tensors[0])


class _WeightGradients:
    """Core's CUDA extension of that name."""

    @staticmethod
    def wgrad_gemm_accum_fp32(
        total_input: torch.Tensor, grad_output: torch.Tensor, main_grad: torch.Tensor
    ) -> None:
        torch.ops.rehearsal.accumulate(grad_output, total_input, main_grad)

    wgrad_gemm_accum_fp16 = wgrad_gemm_accum_fp32


def _around(ring: Optional[torch.distributed.ProcessGroup], *tensors: torch.Tensor) -> None:
    """Sends tensors on and takes the former rank's, until each rank has seen those of all."""
    for _ in range(0 if ring is None else ring.size() - 1):
        for tensor in tensors:
            rank, size = ring.rank(), ring.size()
            torch.distributed.isend(tensor, group=ring, group_dst=(rank + 1) % size)
            torch.distributed.irecv(
                torch.empty_like(tensor), group=ring, group_src=(rank - 1) % size
            )


def _norm_of_all(*args: Any) -> tuple[torch.Tensor, None]:
    return torch.zeros(1), None


def _choose(name: str, device_kind: str) -> tuple[str, str]:
    return "local" if name == "local" else "transformer_engine", REHEARSED


@torch.library.custom_op("rehearsal::accumulate", mutates_args=("main_grad",))
def _accumulate(
    grad_output: torch.Tensor, total_input: torch.Tensor, main_grad: torch.Tensor
) -> None:
    """main_grad += grad_output^T x total_input; [tokens, out], [tokens, in], [out, in]."""


@torch.library.custom_op("rehearsal::attention", mutates_args=())
def _attention(query: torch.Tensor, ranks: int, products: int) -> None:
    """`products` products of the attention matrix of [s, b, n, d] queries, to s x ranks keys."""


@register_flop_formula(torch.ops.rehearsal.accumulate)
def _accumulate_flops(grad_output, total_input, main_grad, **kwargs: Any) -> int:
    return 2 * grad_output[0] * grad_output[1] * total_input[1]


@register_flop_formula(torch.ops.rehearsal.attention)
def _attention_flops(query, ranks: int, products: int, **kwargs: Any) -> int:
    sequence, batch, heads, width = query
    return products * 2 * batch * heads * sequence * (sequence * ranks) * width
