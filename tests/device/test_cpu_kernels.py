"""The CPU kernels give the values and gradients of plain torch."""

import pytest
import torch
from torch._subclasses import FakeTensorMode
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


SHAPES = [(64, 96, 32), (33, 7, 130), (200, 8, 8), (32, 130, 7)]


@pytest.mark.parametrize(("rows", "columns", "outputs"), SHAPES)
def test_onednn_gives_the_products_of_torch(rows, columns, outputs):
    a, weight = torch.randn(rows // 2, 2, columns), torch.randn(outputs, columns)
    torch.testing.assert_close(cpu_kernels.times_transposed(a, weight), a @ weight.t())
    grad = torch.randn(rows // 2, 2, outputs)
    torch.testing.assert_close(cpu_kernels.times_transposed(grad, weight.t()), grad @ weight)


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "columns", "outputs"), SHAPES)
def test_weight_gradients_are_added_up(monkeypatch, rows, columns, outputs, dtype, onednn):
    monkeypatch.setattr(cpu_kernels, "onednn_is_faster", lambda: onednn)
    inputs, grad = torch.randn(rows, columns).to(dtype), torch.randn(rows, outputs).to(dtype)
    main_grad = torch.randn(outputs, columns)
    expected = main_grad + (grad.t() @ inputs).float()
    cpu_kernels.accumulate_weight_gradient(inputs, grad, main_grad)
    torch.testing.assert_close(main_grad, expected, rtol=1e-4, atol=1e-4)


def test_what_onednn_is_not_given():
    rows = torch.randn(cpu_kernels.FEWEST_ROWS, 4)
    square = torch.randn(4, 4)
    assert cpu_kernels.suits_onednn(rows, square)
    assert not cpu_kernels.suits_onednn(rows[1:], square), "few rows"
    assert not cpu_kernels.suits_onednn(rows[:0], square), "no rows"
    assert not cpu_kernels.suits_onednn(rows, square[0]), "a vector"
    assert not cpu_kernels.suits_onednn(rows.bfloat16(), square.bfloat16()), "bf16"
    leaf = square.requires_grad_()
    assert not cpu_kernels.suits_onednn(rows, leaf), "a gradient to record"
    with torch.no_grad():
        assert cpu_kernels.suits_onednn(rows, leaf)
    with FakeTensorMode() as mode:
        assert not cpu_kernels.suits_onednn(mode.from_tensor(rows), square), "no real tensor"


def test_the_choice_depends_on_the_machine_alone():
    assert cpu_kernels.onednn_is_faster() is cpu_kernels.onednn_is_faster.__wrapped__()
