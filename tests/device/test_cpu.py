import pytest
import torch
from megatron.core.tensor_parallel import random as core_random

from megatron_biollm.config import UserError
from megatron_biollm.device.cpu import _patches, cuda_answered_by_cpu
from megatron_biollm.device.cuda import cuda_kernels
from megatron_biollm.device.runtime import select_device

ABSENT = object()


def patched_names():
    """Every name that the block changes, with its value outside."""
    return {(target, name): getattr(target, name, ABSENT) for target, name, _ in _patches()}


def test_every_name_is_restored_after_the_block():
    before = patched_names()
    namespaces = {target: set(vars(target)) for target, _ in before}
    with cuda_answered_by_cpu():
        changed = [name for (target, name), value in before.items()
                   if getattr(target, name) is not value]  # fmt: skip
        assert len(changed) == len(before) > 40
    for (target, name), value in before.items():
        assert getattr(target, name, ABSENT) is value, f"{target}.{name}"
    assert {target: set(vars(target)) for target in namespaces} == namespaces


def test_every_name_is_restored_after_an_error_in_the_block():
    before = patched_names()
    with pytest.raises(ZeroDivisionError), cuda_answered_by_cpu():
        raise ZeroDivisionError
    assert patched_names() == before


def test_core_finds_the_cpu_where_it_asks_for_cuda():
    with cuda_answered_by_cpu():
        assert torch.cuda.current_device() == torch.device("cpu")
        assert torch.ones(2, device="cuda").device.type == "cpu"
        assert torch.empty(2, device=torch.device("cuda", 0), pin_memory=True).device.type == "cpu"
        assert torch.ones(2).to("cuda").device.type == "cpu"
        assert torch.ones(2).to(device="cuda", dtype=torch.int64).dtype == torch.int64
        assert torch.ones(2).cuda().device.type == "cpu"
        assert torch.cuda.FloatTensor([1.0]).tolist() == [1.0]
        assert torch.ones(2).bfloat16().type() == "torch.cuda.BFloat16Tensor"
        assert torch.ones(2).type(torch.int64).dtype == torch.int64
        with torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda.synchronize()
    assert torch.ones(2).type() == "torch.FloatTensor"


def test_core_saves_and_restores_the_random_state_of_the_cpu():
    with cuda_answered_by_cpu():
        torch.cuda.manual_seed(3)
        state = core_random._get_cuda_rng_state()
        first = torch.rand(4)
        core_random._set_cuda_rng_state(state)
        assert torch.equal(torch.rand(4), first)


def test_a_run_on_a_gpu_asks_cuda_itself():
    before = patched_names()
    device = select_device("cpu")
    gpu = type(device)("cuda", "nccl", torch.device("cuda", 0), "for the test")
    given = {(target, name) for kernel in cuda_kernels() for target, name, _ in kernel.patches}
    with gpu.core_context():
        after = patched_names()
    changed = {key for key, value in before.items() if after[key] is not value}
    assert changed <= given


def test_the_cpu_runs_on_gloo_and_says_why():
    device = select_device("cpu")
    assert (device.kind, device.backend, device.torch_device.type) == ("cpu", "gloo", "cpu")
    assert device.reason == "training.device=cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_auto_takes_the_cpu_without_a_gpu_and_says_so():
    assert select_device("auto").kind == "cpu"
    assert "GPU found: False" in select_device("auto").reason


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_without_a_gpu_is_refused_with_the_remedy():
    with pytest.raises(UserError, match="training.device=cuda, but .* finds no GPU; use .*=cpu"):
        select_device("cuda")


def test_an_unknown_device_is_refused():
    with pytest.raises(UserError, match="training.device=tpu is unknown; choose auto, cpu or cuda"):
        select_device("tpu")
