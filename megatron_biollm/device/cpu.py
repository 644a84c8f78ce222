"""What megatron-core expects of CUDA, answered on the CPU, inside a `with`.

Core names `torch.cuda` directly in some hundred places (current device, streams, random state,
`device="cuda"` in factory calls, `torch.cuda.FloatTensor` in the optimizers). Inside
`cuda_answered_by_cpu()` these calls act on the CPU; outside, and on a run that uses a GPU,
nothing is changed. Patches were preferred to a `TorchFunctionMode`, which would add Python code
to every operator call of the training step.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from megatron_biollm.device.cpu_kernels import (
    accumulate_weight_gradient,
    cross_entropy,
    onednn_is_faster,
    rotate,
    scale_in_place,
    suits_onednn,
    swiglu,
    times_transposed,
)
from megatron_biollm.device.vocab_loss import vocab_cross_entropy

CPU = torch.device("cpu")
# From here on the loss in parts is the faster one (by a quarter with 8,192 pieces and 1,024
# tokens); of fewer, all probabilities stay in the cache.
LARGE_VOCABULARY = 4096
FACTORIES = (
    "tensor",
    "as_tensor",
    "zeros",
    "ones",
    "empty",
    "full",
    "arange",
    "rand",
    "randn",
    "randint",
    "zeros_like",
    "ones_like",
    "empty_like",
    "full_like",
    "rand_like",
    "randn_like",
    "linspace",
)


class _Stream:
    """A stream or event: on the CPU every operation has finished when its call returns."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def wait_stream(self, stream: "_Stream") -> None:
        pass

    def wait_event(self, event: "_Stream") -> None:
        pass

    def record(self, stream: "_Stream | None" = None) -> None:
        pass

    def record_event(self, event: "_Stream | None" = None) -> "_Stream":
        return self

    def wait(self, stream: "_Stream | None" = None) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def query(self) -> bool:
        return True

    def elapsed_time(self, end: "_Stream") -> float:
        return 0.0


def describe_kernels() -> dict[str, str]:
    """What computes each part of a step, by name."""
    products = "oneDNN (fp32)" if onednn_is_faster() else "torch"
    return {
        "products": products,
        "attention": "torch SDPA",
        "norm": "torch RMSNorm",
        "rope": "torch, in place",
        "swiglu": "torch, in place",
        "weight gradients": f"{products}, added to the main gradient",
        "clipping": "torch, in place",
        "loss": "torch log-softmax, gradient in place, in parts where it is large",
        "adamw": "torch, fused",
    }


@contextlib.contextmanager
def cuda_answered_by_cpu() -> Iterator[None]:
    """Answers core's CUDA calls on the CPU until the block ends, then restores every name."""
    with contextlib.ExitStack() as stack:
        for target, name, value in _patches():
            # `create`: a CPU build of torch lacks some of the names.
            stack.enter_context(mock.patch.object(target, name, value, create=True))
        yield


def _patches() -> list[tuple[Any, str, Any]]:
    return [
        *((torch.cuda, name, value) for name, value in _cuda_module().items()),
        *((torch, name, _without_cuda_device(getattr(torch, name))) for name in FACTORIES),
        *_tensor_methods(),
        *_random_state(),
        *_autocast_state(),
        *_products(),
        *_kernels(),
        *_collectives(),
    ]


def _cuda_module() -> dict[str, Any]:
    # A function of its own for each name: torch's compiler, if it is imported inside the `with`,
    # files functions by identity and refuses one that stands for two names.
    return {
        "current_device": lambda: CPU,
        "set_device": lambda device: None,
        "synchronize": lambda device=None: None,
        "empty_cache": lambda: None,
        "Stream": _Stream,
        "Event": _Stream,
        "current_stream": lambda device=None: _Stream(),
        "default_stream": lambda device=None: _Stream(),
        "stream": lambda stream: contextlib.nullcontext(),
        "is_current_stream_capturing": lambda: False,
        "memory_allocated": lambda device=None: 0,
        "max_memory_allocated": lambda device=None: 0,
        "manual_seed": torch.default_generator.manual_seed,
        "manual_seed_all": lambda seed: None,
        "FloatTensor": _typed_tensor(torch.float32),
        "IntTensor": _typed_tensor(torch.int32),
        "LongTensor": _typed_tensor(torch.int64),
    }


def _typed_tensor(dtype: torch.dtype) -> Callable[[Any], torch.Tensor]:
    return lambda data: torch.tensor(data, dtype=dtype)


def _tensor_methods() -> list[tuple[Any, str, Any]]:
    tensor_to, tensor_type = torch.Tensor.to, torch.Tensor.type

    def to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if args and _is_cuda(args[0]):
            args = (CPU, *args[1:])
        if _is_cuda(kwargs.get("device")):
            kwargs["device"] = CPU
        return tensor_to(self, *args, **kwargs)

    def type_(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        # The optimizers sort parameters by names such as `torch.cuda.BFloat16Tensor`.
        if args or kwargs:
            return tensor_type(self, *args, **kwargs)
        return tensor_type(self).replace("torch.", "torch.cuda.", 1)

    same = lambda self, *args, **kwargs: self  # noqa: E731
    return [
        (torch.Tensor, "cuda", same),
        (torch.Tensor, "pin_memory", same),
        (torch.Tensor, "to", to),
        (torch.Tensor, "type", type_),
        (torch.nn.Module, "cuda", same),
    ]


def _random_state() -> list[tuple[Any, str, Any]]:
    # Core binds these functions by name in its own module, so that module is patched too.
    from megatron.core.tensor_parallel import random as core_random

    get = lambda *args, **kwargs: torch.default_generator.get_state()  # noqa: E731
    set_ = lambda state, *args, **kwargs: torch.default_generator.set_state(state)  # noqa: E731
    return [
        (torch.cuda, "get_rng_state", get),
        (torch.cuda, "set_rng_state", set_),
        (torch.cuda.random, "get_rng_state", get),
        (torch.cuda.random, "set_rng_state", set_),
        (core_random, "_get_cuda_rng_state", get),
        (core_random, "_set_cuda_rng_state", set_),
    ]


def _autocast_state() -> list[tuple[Any, str, Any]]:
    # `custom_fwd(device_type="cuda")` of core's linear layers asks for the state of CUDA's
    # autocast, which is never on here.
    return [(torch, "is_autocast_enabled", lambda device_type=None: False)]


def _products() -> list[tuple[Any, str, Any]]:
    # Core's linear layers call these two, inside autograd functions of their own.
    if not onednn_is_faster():
        return []
    plain = torch.matmul

    def matmul(a: torch.Tensor, b: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        if kwargs or not suits_onednn(a, b):
            return plain(a, b, **kwargs)
        return times_transposed(a, b.t())

    return [(torch, "matmul", matmul), (torch.Tensor, "matmul", matmul)]


def _kernels() -> list[tuple[Any, str, Any]]:
    # Core's gradient accumulation fusion calls two functions of a CUDA extension by this name.
    from megatron.core import parallel_state, tensor_parallel
    from megatron.core.models.common.embeddings import rope_utils
    from megatron.core.optimizer import clip_grads
    from megatron.core.tensor_parallel import layers
    from megatron.core.transformer import mlp

    extension = SimpleNamespace(
        wgrad_gemm_accum_fp32=accumulate_weight_gradient,
        wgrad_gemm_accum_fp16=accumulate_weight_gradient,
    )
    unfused = rope_utils._apply_rotary_pos_emb_bshd

    def loss(logits: torch.Tensor, target: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        group = parallel_state.get_tensor_model_parallel_group()
        if group.size() == 1 and logits.shape[-1] < LARGE_VOCABULARY:
            return cross_entropy(logits, target)
        return vocab_cross_entropy(logits, target, group)

    def rope(
        t: torch.Tensor, freqs: torch.Tensor, rotary_interleaved: bool = False, **kwargs: Any
    ) -> torch.Tensor:
        scale = kwargs.pop("mscale", 1.0)
        if rotary_interleaved or any(kwargs.values()) or freqs.shape[-1] != t.shape[-1]:
            return unfused(t, freqs, rotary_interleaved, mscale=scale, **kwargs)
        return rotate(t, freqs, scale)

    return [
        (layers, "fused_weight_gradient_mlp_cuda", extension),
        (layers, "_grad_accum_fusion_available", True),
        (rope_utils, "_apply_rotary_pos_emb_bshd", rope),
        (mlp, "bias_swiglu_impl", swiglu),
        (tensor_parallel, "vocab_parallel_cross_entropy", loss),
        (clip_grads, "multi_tensor_scale_impl", scale_in_place),
    ]


def _collectives() -> list[tuple[Any, str, Any]]:
    # The distributed optimizer shards even over a group of one, where NCCL does nothing and gloo
    # copies the whole model three times a step (7 % of a small model's step).
    from megatron.core.distributed import param_and_grad_buffer as buffers

    names = ("dist_all_gather_func", "dist_reduce_scatter_func")
    return [(buffers, name, _nothing_for_one(getattr(buffers, name))) for name in names]


def _nothing_for_one(collective: Callable) -> Callable:
    @functools.wraps(collective)
    def call(
        output: torch.Tensor,
        input: torch.Tensor,
        group: torch.distributed.ProcessGroup,
        async_op: bool = False,
        **kwargs: Any,
    ) -> Any:
        if group.size() == 1 and output.data_ptr() == input.data_ptr():
            return _Stream() if async_op else None
        return collective(output, input, group=group, async_op=async_op, **kwargs)

    return call


def _without_cuda_device(factory: Callable) -> Callable:
    @functools.wraps(factory)
    def on_cpu(*args: Any, **kwargs: Any) -> torch.Tensor:
        if _is_cuda(kwargs.get("device")):
            kwargs["device"] = CPU
        kwargs.pop("pin_memory", None)
        return factory(*args, **kwargs)

    return on_cpu


def _is_cuda(device: Any) -> bool:
    if isinstance(device, str):
        return device.startswith("cuda")
    return isinstance(device, torch.device) and device.type == "cuda"
