"""What megatron-core lacks on a GPU without Transformer Engine and apex, inside a `with`.

torch has it all: matrix products of bf16 that add up in fp32, torch.compile, cuDNN's and flash
attention. Each is put where core looks for it, as `device/cpu.py` does on the CPU.

Two things need nothing: torch.nn.RMSNorm is one kernel on CUDA from torch 2.9 on
(`aten::_fused_rms_norm`, where weight and input have one precision, as here), and AdamW is torch's
fused one (`training/optimizer.py`).
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from megatron_biollm.device.cpu_kernels import swiglu
from megatron_biollm.device.cuda_kernels import (
    accumulate_apart,
    accumulate_mixed,
    logsumexp,
    norm_of_all,
    places_in_documents,
    rotate,
    scale_all,
    turned_halves,
)
from megatron_biollm.device.first_that_works import FirstThatWorks, compiled, unless_compiled
from megatron_biollm.device.vocab_loss import normaliser, softmax_in_place, vocab_cross_entropy

# Of apex, by the name that core imports it under.
EXTENSION = "fused_weight_gradient_mlp_cuda"
# Packages whose kernels core takes for many tensors at once.
MULTI_TENSOR = ("transformer_engine", "amp_C")


@dataclass(frozen=True)
class Kernel:
    """What is put in place of something of core's.

    Attributes:
        job: what it computes.
        implementation: knows its name.
        patches: (object, name, value).
    """

    job: str
    implementation: FirstThatWorks
    patches: tuple[tuple[Any, str, Any], ...]


@contextlib.contextmanager
def core_on_cuda() -> Iterator[None]:
    """Puts the kernels where core looks for them until the block ends, then restores every name."""
    with contextlib.ExitStack() as stack:
        for kernel in cuda_kernels():
            for target, name, value in kernel.patches:
                # `create`: core has no name for an extension that it has not found.
                stack.enter_context(mock.patch.object(target, name, value, create=True))
        yield


def cuda_kernels() -> list[Kernel]:
    """All that core is given on this machine."""
    kernels = [_loss(), _rope(), _swiglu()]
    # apex has it. Transformer Engine's is inside its own layers, and core's output layer, which is
    # none of them, refuses to be built without apex's.
    if find_spec(EXTENSION) is None:
        kernels.append(_weight_gradients())
    if all(find_spec(name) is None for name in MULTI_TENSOR):
        kernels.append(_clipping())
    return kernels


def describe_kernels(transformer_impl: str) -> dict[str, str]:
    """The implementation of each part of a step, by name; what fails at its first call says so.

    Args:
        transformer_impl: `transformer_engine` or `local`.
    """
    fused = torch._C._dispatch_has_kernel_for_dispatch_key("aten::_fused_rms_norm", "CUDA")
    names = {
        "attention": "torch SDPA (cuDNN from Hopper on, else flash)",
        "norm": "torch RMSNorm" + (", one kernel" if fused else ""),
        "weight gradients": "apex",
        "clipping": "Transformer Engine or apex",
        "adamw": "torch, fused",
    }
    names |= {kernel.job: kernel.implementation.name for kernel in cuda_kernels()}
    if transformer_impl == "transformer_engine":
        names["output layer's weight gradient"] = names["weight gradients"]
        own = ("attention", "norm", "rope", "weight gradients", "adamw")
        names |= dict.fromkeys(own, "Transformer Engine")
    return names


def _loss() -> Kernel:
    from megatron.core.models.common.language_module import language_module

    find = compiled("loss", logsumexp, plain=normaliser)
    write = compiled("gradient of the loss", softmax_in_place)

    def loss(logits: torch.Tensor, target: torch.Tensor, tp_group: Any) -> torch.Tensor:
        return vocab_cross_entropy(logits, target, tp_group, find, write)

    return Kernel("loss", find, ((language_module, "fused_vocab_parallel_cross_entropy", loss),))


def _rope() -> Kernel:
    from megatron.core.models.common.embeddings import rope_utils

    turn = compiled("rope", turned_halves)
    plain, plain_packed = (
        rope_utils._apply_rotary_pos_emb_bshd,
        rope_utils._apply_rotary_pos_emb_thd,
    )

    def rope(
        t: torch.Tensor, freqs: torch.Tensor, rotary_interleaved: bool = False, **kwargs: Any
    ) -> torch.Tensor:
        scale = kwargs.pop("mscale", 1.0)
        if rotary_interleaved or any(kwargs.values()) or freqs.shape[-1] != t.shape[-1]:
            return plain(t, freqs, rotary_interleaved, mscale=scale, **kwargs)
        return rotate(t, freqs, scale, turn)

    def packed_rope(
        t: torch.Tensor, cu_seqlens: torch.Tensor, freqs: torch.Tensor, **kwargs: Any
    ) -> torch.Tensor:
        if kwargs["cp_group"].size() > 1:
            return plain_packed(t, cu_seqlens, freqs, **kwargs)
        del kwargs["cp_group"]
        places = places_in_documents(cu_seqlens, t.shape[0])
        return rope(t[:, None], freqs[places], **kwargs)[:, 0]

    return Kernel(
        "rope",
        turn,
        (
            (rope_utils, "_apply_rotary_pos_emb_bshd", rope),
            (rope_utils, "_apply_rotary_pos_emb_thd", packed_rope),
        ),
    )


def _swiglu() -> Kernel:
    from megatron.core.transformer import mlp

    cores = ("megatron-core's by torch.compile", mlp.bias_swiglu_impl)
    fused = unless_compiled("swiglu", *cores, plain=swiglu)
    return Kernel("swiglu", fused, ((mlp, "bias_swiglu_impl", fused),))


def _weight_gradients() -> Kernel:
    from megatron.core.tensor_parallel import layers

    add = FirstThatWorks(
        "weight gradients",
        ("one product that adds in fp32", accumulate_mixed),
        ("a product and a sum", accumulate_apart),
    )
    extension = SimpleNamespace(wgrad_gemm_accum_fp32=add, wgrad_gemm_accum_fp16=add)
    return Kernel(
        "weight gradients",
        add,
        (
            (layers, EXTENSION, extension),
            (layers, "_grad_accum_fusion_available", True),
        ),
    )


def _clipping() -> Kernel:
    from megatron.core.optimizer import clip_grads, optimizer

    norm = FirstThatWorks("clipping", ("torch, all tensors at once", norm_of_all))
    return Kernel(
        "clipping",
        norm,
        (
            (clip_grads, "l2_norm_impl", norm),
            (clip_grads, "multi_tensor_scale_impl", scale_all),
            (optimizer, "multi_tensor_scale_impl", scale_all),
        ),
    )
