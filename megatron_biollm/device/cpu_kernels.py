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


def swiglu(x: torch.Tensor, bias: None = None, *unused: Any) -> torch.Tensor:
    """silu(first half) * second half (Shazeer 2020, https://arxiv.org/abs/2002.05202).

    Args:
        x: [..., 2f].
        bias: core passes None, since the model has no biases.
    """
    return _SwiGLU.apply(x)


def cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Loss per token over a whole vocabulary, in fp32.

    Args:
        logits: [s, b, v].
        target: ids, [s, b].

    Returns:
        [s, b].
    """
    return _CrossEntropy.apply(logits, target)


def scale_in_place(
    chunk_size: int, overflow: Any, tensor_lists: list[list[torch.Tensor]], scale: float
) -> None:
    """Multiplies each tensor of the first list into its place in the second."""
    for source, target in zip(*tensor_lists, strict=True):
        torch.mul(source, scale, out=target)


class _CrossEntropy(torch.autograd.Function):
    """Keeps one tensor of the logits' size and turns it into the gradient where it lies."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        log_probs = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
        ctx.save_for_backward(log_probs, target)
        ctx.dtype = logits.dtype
        return log_probs.gather(-1, target[..., None])[..., 0].neg_()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        log_probs, target = ctx.saved_tensors
        result = log_probs.exp_().mul_(grad[..., None])
        result.scatter_add_(-1, target[..., None], -grad[..., None])
        return result.to(ctx.dtype), None


class _SwiGLU(torch.autograd.Function):
    """Writes both halves of the gradient into one tensor, where autograd would join them."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        gate, up = x.chunk(2, dim=-1)
        activated = torch.nn.functional.silu(gate)
        ctx.save_for_backward(x, activated)
        return activated * up

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        x, activated = ctx.saved_tensors
        result = torch.empty_like(x)
        (gate, up), (grad_gate, grad_up) = x.chunk(2, dim=-1), result.chunk(2, dim=-1)
        torch.mul(grad, activated, out=grad_up)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=grad_gate)
        return result


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
