"""What a GPU run puts in core's place, as far as it can be tried without a GPU."""

import logging
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from megatron.core.models.common.embeddings import rope_utils
from torch.nn import functional

from megatron_biollm.device import cuda_kernels, first_that_works, vocab_loss
from megatron_biollm.device.cuda import core_on_cuda
from megatron_biollm.device.cuda import cuda_kernels as kernels_of_core
from megatron_biollm.device.first_that_works import FirstThatWorks, compiled
from megatron_biollm.device.runtime import Device, select_device

GPU = Device("cuda", "nccl", torch.device("cuda", 0), "for the test")
ABSENT = object()


def patched():
    return {
        (target, name): value
        for kernel in kernels_of_core()
        for target, name, value in kernel.patches
    }


def test_a_run_on_a_gpu_finds_the_kernels_where_core_looks_and_leaves_none_behind():
    before = {(target, name): getattr(target, name, ABSENT) for target, name in patched()}
    # Names of the newest core that have gone would be made here, and used by nobody.
    assert [name for (_, name), value in before.items() if value is ABSENT] in (
        [],
        ["fused_weight_gradient_mlp_cuda"],
    )
    with GPU.core_context():
        for (target, name), value in before.items():
            assert getattr(target, name) is not value, name
    for (target, name), value in before.items():
        assert getattr(target, name, ABSENT) is value, name


def test_every_part_of_a_step_is_named_for_the_log():
    parts = {"attention", "norm", "rope", "swiglu", "loss"}
    parts |= {"weight gradients", "clipping", "adamw"}
    assert set(GPU.kernels("local")) == parts
    assert set(select_device("cpu").kernels("local")) == {*parts, "products"}
    engine = GPU.kernels("transformer_engine")
    assert engine["attention"] == engine["rope"] == "Transformer Engine"
    assert engine["loss"] == GPU.kernels("local")["loss"]


def test_a_machine_without_a_compiler_says_so_in_the_name(monkeypatch):
    monkeypatch.setattr(first_that_works, "find_spec", lambda name: None)
    assert GPU.kernels("local")["rope"] == "torch, not compiled (triton is absent)"
    assert compiled("rope", abs)(-1) == 1


def test_what_fails_at_its_first_call_gives_way_for_good_and_says_why(caplog):
    calls = []

    def breaks(x):
        calls.append(x)
        raise RuntimeError("no kernel image\nand much more")

    works = FirstThatWorks("rope", ("fast", breaks), ("slow", lambda x: x + 1))
    with caplog.at_level(logging.WARNING):
        assert [works(1), works(2)] == [2, 3]
    assert calls == [1]
    assert works.name == "slow"
    assert [r.getMessage() for r in caplog.records] == [
        "rope: fast does not work here (RuntimeError: no kernel image), so it is: slow"
    ]


def test_what_has_worked_once_is_not_given_up():
    def breaks_later(x):
        if x > 1:
            raise RuntimeError("a bad argument")
        return x

    works = FirstThatWorks("rope", ("fast", breaks_later), ("slow", lambda x: x))
    assert works(1) == 1
    with pytest.raises(RuntimeError, match="a bad argument"):
        works(2)


def test_memory_that_runs_out_is_not_taken_for_a_missing_kernel():
    def too_large():
        raise torch.OutOfMemoryError("CUDA out of memory")

    works = FirstThatWorks("loss", ("fast", too_large), ("slow", lambda: 0))
    with pytest.raises(torch.OutOfMemoryError):
        works()
    assert works.name == "fast"


def values_and_gradients(function, *inputs):
    leaves = [x.clone().requires_grad_() for x in inputs]
    result = function(*leaves)
    weight = torch.linspace(0.5, 1.5, result.numel()).view_as(result).bfloat16().to(result)
    return [result.detach(), *torch.autograd.grad((result * weight).sum(), leaves)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mscale", [1.0, 1.25])
def test_rope_is_that_of_core_and_rounds_once(dtype, mscale):
    angles = torch.randn(7, 1, 1, 4)
    freqs = torch.cat((angles, angles), dim=-1)
    t = torch.randn(7, 2, 3, 8).to(dtype)
    call = lambda x: rope_utils._apply_rotary_pos_emb_bshd(x, freqs, mscale=mscale)  # noqa: E731
    plain = values_and_gradients(call, t.float())
    with core_on_cuda():
        ours = values_and_gradients(call, t)
    for got, expected in zip(ours, plain, strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got, expected.to(dtype))


@dataclass
class Alone:
    """A context-parallel group of one."""

    def size(self):
        return 1

    def rank(self):
        return 0


@pytest.mark.parametrize("lengths", [[12], [5, 7], [1, 1, 4, 6], [12, 0]])
def test_rope_of_packed_documents_is_that_of_core(lengths):
    boundaries = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    angles = torch.randn(max(lengths), 1, 1, 4)
    freqs = torch.cat((angles, angles), dim=-1)
    t = torch.randn(12, 3, 8)
    call = lambda x: rope_utils._apply_rotary_pos_emb_thd(x, boundaries, freqs, cp_group=Alone())  # noqa: E731
    plain = values_and_gradients(call, t)
    with core_on_cuda():
        ours = values_and_gradients(call, t)
    for got, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(got, expected)


def test_the_place_of_each_packed_token():
    places = cuda_kernels.places_in_documents(torch.tensor([0, 3, 4, 4, 6]), 6)
    assert places.tolist() == [0, 1, 2, 0, 0, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weight_gradients_add_up_in_fp32(dtype):
    from megatron.core.tensor_parallel import layers

    start = torch.randn(4, 3)
    inputs, grads = torch.randn(5, 3, dtype=dtype), torch.randn(5, 4, dtype=dtype)
    main_grad = start.clone()
    with core_on_cuda():
        layers.fused_weight_gradient_mlp_cuda.wgrad_gemm_accum_fp32(inputs, grads, main_grad)
    assert main_grad.dtype == torch.float32
    expected = start + (grads.float().t() @ inputs.float())
    # Without a GPU the product of bf16 is rounded before it is added.
    tolerance = 0.02 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(main_grad, expected, rtol=tolerance, atol=tolerance)


def test_swiglu_runs_without_a_compiler(monkeypatch):
    from megatron.core.transformer import mlp

    monkeypatch.setattr(first_that_works, "find_spec", lambda name: None)
    x = torch.randn(3, 2, 8)
    gate, up = x.chunk(2, dim=-1)
    with core_on_cuda():
        ours = mlp.bias_swiglu_impl(x, None, False, False)
    torch.testing.assert_close(ours, functional.silu(gate) * up)


def test_gradients_are_measured_and_clipped_all_at_once():
    from megatron.core.optimizer import clip_grads

    tensors = [torch.randn(3, 4), torch.randn(5)]
    whole = torch.cat([x.flatten() for x in tensors])
    with core_on_cuda():
        norm, _ = clip_grads.l2_norm_impl(2**16, None, [tensors], False)
        clip_grads.multi_tensor_scale_impl(2**16, None, [tensors, tensors], 0.5)
        apart = [torch.empty(3, 4), torch.empty(5)]
        clip_grads.multi_tensor_scale_impl(2**16, None, [tensors, apart], 2.0)
    torch.testing.assert_close(norm, whole.norm().view(1))
    torch.testing.assert_close(torch.cat([x.flatten() for x in tensors]), whole / 2)
    torch.testing.assert_close(torch.cat([x.flatten() for x in apart]), whole)


@pytest.mark.slow
@pytest.mark.skipif(
    first_that_works.why_no_compiler() is not None, reason="torch.compile has no compiler here"
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_compiled_gives_what_is_not_for_every_number_of_rows(dtype, monkeypatch):
    monkeypatch.setattr(vocab_loss, "ELEMENTS", 100 * 1000)
    kernel = next(one for one in kernels_of_core() if one.job == "loss")
    ((_, _, in_parts),) = kernel.patches
    for rows in (300, 250, 64, 1, 700):
        logits = (4 * torch.randn(rows, 1000)).to(dtype)
        target = torch.randint(1000, (rows,))
        ours = values_and_gradients(partial(losses, in_parts, target), logits)
        plain = values_and_gradients(partial(losses, plain_loss, target), logits)
        for got, expected in zip(ours, plain, strict=True):
            torch.testing.assert_close(got, expected)
    assert kernel.implementation.name == "torch.compile"


def losses(function, target, logits):
    return function(logits * 1, target, None)


def plain_loss(logits, target, group):
    return functional.cross_entropy(logits.float(), target, reduction="none")
