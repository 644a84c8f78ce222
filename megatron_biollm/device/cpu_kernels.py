"""What fused CUDA kernels do for core, done on the CPU with fewer passes over memory."""

from typing import Any

import torch


def accumulate_weight_gradient(
    total_input: torch.Tensor, grad_output: torch.Tensor, main_grad: torch.Tensor
) -> None:
    """Adds grad_output^T x total_input to the main gradient, in one matrix product.

    Args:
        total_input: [tokens, in].
        grad_output: [tokens, out].
        main_grad: [out, in], fp32; changed in place.
    """
    if total_input.dtype == main_grad.dtype:
        main_grad.addmm_(grad_output.t(), total_input)
    else:  # bf16 operands, fp32 sum
        main_grad.add_(grad_output.t().matmul(total_input))


def rotate(t: torch.Tensor, freqs: torch.Tensor, mscale: float = 1.0) -> torch.Tensor:
    """Rotary embedding of halves (Su et al. 2021, https://arxiv.org/abs/2104.09864).

    Args:
        t: [s, b, n, d].
        freqs: angles, [s, 1, 1, d], the second half of d equal to the first.
        mscale: factor on the result.
    """
    angles = freqs[..., : freqs.shape[-1] // 2]
    cos, sin = (f(angles).mul_(mscale).to(t.dtype) for f in (torch.cos, torch.sin))
    return _Rotation.apply(t, cos, sin)


class _Rotation(torch.autograd.Function):
    """Its backward pass is the rotation by the opposite angle."""

    @staticmethod
    def forward(ctx: Any, t: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotate_halves(t, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _rotate_halves(grad, *ctx.saved_tensors, -1), None, None


def _rotate_halves(
    t: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, sign: int
) -> torch.Tensor:
    result = torch.empty_like(t)
    (first, second), (first_out, second_out) = t.chunk(2, dim=-1), result.chunk(2, dim=-1)
    torch.mul(first, cos, out=first_out).addcmul_(second, sin, value=-sign)
    torch.mul(second, cos, out=second_out).addcmul_(first, sin, value=sign)
    return result
