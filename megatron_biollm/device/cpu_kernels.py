"""What fused CUDA kernels do for core, done on the CPU with fewer passes over memory."""

import functools
import platform
from pathlib import Path
from typing import Any

import torch

FEWEST_ROWS = 32  # below it, bringing the weight into oneDNN's order costs more than is won


@functools.cache
def onednn_is_faster() -> bool:
    """Whether oneDNN multiplies fp32 matrices faster here than torch's own choice does.

    torch gives fp32 products to MKL, which leaves the AVX-512 units of processors that are not
    Intel's unused; oneDNN, which torch ships too, takes them: twice the speed on an AMD EPYC of
    2023. Decided by the make of the processor and not by a measurement, so that a run on the same
    machine always takes the same way.
    """
    info = Path("/proc/cpuinfo")
    made_elsewhere = info.is_file() and "GenuineIntel" not in info.read_text()
    return (
        platform.machine() in ("x86_64", "AMD64")
        and made_elsewhere
        and torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
    )


def times_transposed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a x b^T by oneDNN, without a gradient. a: [..., k]. b: [n, k], in any memory order.

    Returns:
        [..., n].
    """
    # What torch's compiler makes of a linear layer on the CPU; there is no public name for it.
    rows = torch.ops.mkldnn._linear_pointwise(a.flatten(0, -2), b, None, "none", [], "")
    # As torch's own matmul: no view, since core changes such results where they lie.
    return torch.ops.aten._unsafe_view(rows, (*a.shape[:-1], len(b)))


def linear(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """rows [..., in] x weight^T [in, out] as core's linear layers compute it here."""
    if onednn_is_faster() and suits_onednn(rows, weight):
        return times_transposed(rows, weight)
    return torch.matmul(rows, weight.t())


def suits_onednn(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether a x b is a product that `times_transposed` may take: fp32, b a matrix, no gradient
    to record, real tensors (those of a rehearsal count FLOPs of torch's own products), many rows.
    """
    return (
        a.dtype is torch.float32
        and b.dtype is torch.float32
        and b.dim() == 2
        and a.dim() >= 2
        and a.numel() >= FEWEST_ROWS * a.shape[-1] > 0
        and not (torch.is_grad_enabled() and (a.requires_grad or b.requires_grad))
        and type(a) in _PLAIN
        and type(b) in _PLAIN
    )


_PLAIN = (torch.Tensor, torch.nn.Parameter)


def accumulate_weight_gradient(
    total_input: torch.Tensor, grad_output: torch.Tensor, main_grad: torch.Tensor
) -> None:
    """Adds grad_output^T x total_input to the main gradient.

    Args:
        total_input: [tokens, in].
        grad_output: [tokens, out].
        main_grad: [out, in], fp32; changed in place.
    """
    by_inputs, by_outputs = total_input.t(), grad_output.t()
    if onednn_is_faster() and suits_onednn(by_outputs, total_input):
        # Its second factor is brought into blocks, which pays for the larger one.
        if len(by_outputs) > len(by_inputs):
            main_grad.add_(times_transposed(by_inputs, by_outputs).t())
        else:
            main_grad.add_(times_transposed(by_outputs, by_inputs))
    elif total_input.dtype == main_grad.dtype:
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
