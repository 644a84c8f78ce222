"""What a step on a GPU computes by torch's own means where it has no Transformer Engine.

The functions know neither megatron-core nor whether they are compiled, and run on the CPU as well.
"""

import contextlib
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import Any, Optional

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

HOPPER = (9, 0)
ORDER_OF_ATTENTION = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
# Of the flash kernels that come with torch: widths of a head.
WIDTH_DIVISOR, WIDEST = 8, 256


def accumulate_mixed(
    total_input: torch.Tensor, grad_output: torch.Tensor, main_grad: torch.Tensor
) -> None:
    """main_grad += grad_output^T x total_input, in one matrix product that adds up in fp32.

    Args:
        total_input: [tokens, in].
        grad_output: [tokens, out], of the same precision.
        main_grad: [out, in], fp32; changed in place.
    """
    if total_input.dtype == main_grad.dtype:
        main_grad.addmm_(grad_output.t(), total_input)
        return
    # On CUDA alone, with this signature from torch 2.10 on.
    torch.ops.aten.addmm.dtype_out(
        main_grad, grad_output.t(), total_input, main_grad.dtype, out=main_grad
    )


def accumulate_apart(
    total_input: torch.Tensor, grad_output: torch.Tensor, main_grad: torch.Tensor
) -> None:
    """The same by a product in the inputs' precision, added to the main gradient."""
    main_grad.add_(grad_output.t().matmul(total_input))


def norm_of_all(
    chunk_size: int, overflow: Any, tensor_lists: list[list[torch.Tensor]], *unused: Any
) -> tuple[torch.Tensor, None]:
    """The norm over all tensors of the first list, [1], by a few kernels and without waiting for
    them (core's own, for want of apex, waits for every tensor)."""
    return torch.stack(torch._foreach_norm(tensor_lists[0])).norm().float().view(1), None


def scale_all(
    chunk_size: int, overflow: Any, tensor_lists: list[list[torch.Tensor]], scale: float
) -> None:
    """Multiplies each tensor of the first list into its place in the second, by a few kernels."""
    sources, targets = tensor_lists
    if any(s.data_ptr() != t.data_ptr() for s, t in zip(sources, targets, strict=True)):
        torch._foreach_copy_(targets, sources)
    if scale != 1.0:
        torch._foreach_mul_(targets, scale)


def logsumexp(logits_nv: torch.Tensor, column_n1: torch.Tensor) -> torch.Tensor:
    """As `vocab_loss.normaliser`, which it replaces where it is compiled to one kernel."""
    return logits_nv.float().logsumexp(-1)


def rotate(
    t: torch.Tensor,
    freqs: torch.Tensor,
    mscale: float,
    turn: Callable[..., torch.Tensor],
) -> torch.Tensor:
    """Rotary embedding of halves (Su et al. 2021, https://arxiv.org/abs/2104.09864).

    Args:
        t: [s, b, n, d].
        freqs: angles, [s, 1, 1, d], the second half of d equal to the first.
        mscale: factor on the result.
        turn: `turned_halves`, compiled or not.
    """
    angles = freqs[..., : freqs.shape[-1] // 2].float()
    return _Rotation.apply(t, angles.cos() * mscale, angles.sin() * mscale, turn)


def turned_halves(
    t: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, backward: bool
) -> torch.Tensor:
    """[..., d] turned by angles whose fp32 cosines and sines are given, [..., d / 2]."""
    first, second = t.float().chunk(2, dim=-1)
    sin = -sin if backward else sin
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(t.dtype)


class _Rotation(torch.autograd.Function):
    """Its backward pass is the rotation by the opposite angle."""

    @staticmethod
    def forward(
        ctx: Any, t: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, turn: Callable[..., Any]
    ) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.turn = turn
        # Detached: compiled code is made for tensors that want a gradient, and again for others.
        return turn(t.detach(), cos, sin, False)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Optional[torch.Tensor], ...]:
        return ctx.turn(grad, *ctx.saved_tensors, True), None, None, None


def places_in_documents(boundaries: torch.Tensor, tokens: int) -> torch.Tensor:
    """Place of each packed token in its document, [tokens], without waiting for the GPU.

    Args:
        boundaries: where documents begin, and the end of the last, [documents + 1].
        tokens: in all.
    """
    firsts = torch.repeat_interleave(boundaries[:-1], boundaries.diff(), output_size=tokens)
    return torch.arange(tokens, device=boundaries.device) - firsts


def attention_order(device: torch.device) -> AbstractContextManager[Any]:
    """Inside, torch's attention tries cuDNN first where it is the faster one: from Hopper on, since
    the flash kernels that come with torch are those made for the generation before (a tenth of a
    whole step on H100, https://github.com/pytorch/torchtitan/issues/1042)."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < HOPPER:
        return contextlib.nullcontext()
    return sdpa_kernel(ORDER_OF_ATTENTION, set_priority=True)


# query [t, n, d], keys and values [t, g, d], boundaries of documents, tokens of the longest, scale
# of the scores (None: 1 / sqrt(d)); gives [t, n, d].
PackedAttention = Callable[..., torch.Tensor]


def packed_attention() -> Optional[PackedAttention]:
    """Causal attention inside each packed document, all in one flash kernel; None where torch has
    none that is good for it (before 2.11), or no GPU."""
    # Without a GPU nothing is imported either: torch's module brings in its whole compiler.
    if not torch.cuda.is_available() or find_spec("torch.nn.attention.varlen") is None:
        return None
    from torch.nn.attention.varlen import varlen_attn

    names = inspect.signature(varlen_attn).parameters
    if "window_size" not in names:
        return None
    grouped = "enable_gqa" in names

    def attend(
        query_tnd: torch.Tensor,
        key_tgd: torch.Tensor,
        value_tgd: torch.Tensor,
        boundaries: torch.Tensor,
        longest: int,
        scale: Optional[float],
    ) -> torch.Tensor:
        options: dict[str, Any] = {"scale": scale, "window_size": (-1, 0)}
        if grouped:
            options["enable_gqa"] = True
        else:
            repeats = query_tnd.shape[1] // key_tgd.shape[1]
            key_tgd, value_tgd = (x.repeat_interleave(repeats, dim=1) for x in (key_tgd, value_tgd))
        tensors = (query_tnd, key_tgd, value_tgd)
        return varlen_attn(*tensors, boundaries, boundaries, longest, longest, **options)

    return attend


def fits_flash(query: torch.Tensor) -> bool:
    """Whether the flash kernels that come with torch take such a tensor, [..., d]."""
    width = query.shape[-1]
    fits = width % WIDTH_DIVISOR == 0 and width <= WIDEST
    return fits and query.dtype in (torch.bfloat16, torch.float16) and query.device.type == "cuda"
