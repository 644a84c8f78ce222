"""The CPU kernels give the values and gradients of plain torch."""

import pytest
import torch
from torch.nn import functional

from megatron_biollm.device import cpu_kernels


def values_and_gradients(function, *inputs):
    leaves = [x.clone().requires_grad_() for x in inputs]
    result = function(*leaves)
    weight = torch.linspace(0.5, 1.5, result.numel()).view_as(result)
    return [result.detach(), *torch.autograd.grad((result * weight).sum(), leaves)]


def test_swiglu():
    def plain(x):
        gate, up = x.chunk(2, dim=-1)
        return functional.silu(gate) * up

    x = torch.randn(6, 2, 10)
    for got, expected in zip(
        values_and_gradients(cpu_kernels.swiglu, x), values_and_gradients(plain, x), strict=True
    ):
        torch.testing.assert_close(got, expected)


def test_rotate():
    angles = torch.randn(6, 1, 1, 4)
    freqs = torch.cat((angles, angles), dim=-1)

    def plain(t):
        first, second = t.chunk(2, dim=-1)
        return t * freqs.cos() + torch.cat((-second, first), dim=-1) * freqs.sin()

    t = torch.randn(6, 2, 3, 8)
    for got, expected in zip(
        values_and_gradients(lambda x: cpu_kernels.rotate(x, freqs), t),
        values_and_gradients(plain, t),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cross_entropy(dtype):
    target = torch.randint(11, (6, 2))

    def plain(logits):
        flat = functional.cross_entropy(
            logits.float().flatten(0, 1), target.flatten(), reduction="none"
        )
        return flat.view(6, 2)

    logits = (torch.randn(6, 2, 11) * 4).to(dtype)
    for got, expected in zip(
        values_and_gradients(lambda x: cpu_kernels.cross_entropy(x, target), logits),
        values_and_gradients(plain, logits),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weight_gradients_add_up_in_fp32(dtype):
    main_grad, start = torch.zeros(4, 3), torch.randn(4, 3)
    main_grad.copy_(start)
    inputs, grads = torch.randn(5, 3, dtype=dtype), torch.randn(5, 4, dtype=dtype)
    cpu_kernels.accumulate_weight_gradient(inputs, grads, main_grad)
    torch.testing.assert_close(main_grad, start + (grads.t() @ inputs).float())


def test_scaling_writes_in_place():
    tensor = torch.arange(4.0)
    cpu_kernels.scale_in_place(0, None, [[tensor], [tensor]], 0.5)
    assert tensor.tolist() == [0.0, 0.5, 1.0, 1.5]
