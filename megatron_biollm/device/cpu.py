"""What megatron-core expects of CUDA, answered on the CPU, inside a `with`.

Core names `torch.cuda` directly in some hundred places (current device, streams, random state,
`device="cuda"` in factory calls, `torch.cuda.FloatTensor` in the optimizers). Inside
`cuda_answered_by_cpu()` these calls act on the CPU; outside, and on a run that uses a GPU,
nothing is changed. Patches were preferred to a `TorchFunctionMode`, which would add Python code
to every operator call of the training step.
"""

import contextlib
import functools
from typing import Any, Callable, Iterator
from unittest import mock

import torch

CPU = torch.device("cpu")
FACTORIES = (
    "tensor", "as_tensor", "zeros", "ones", "empty", "full", "arange", "rand", "randn", "randint",
    "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "linspace",
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
    ]


def _cuda_module() -> dict[str, Any]:
    nothing = lambda *args, **kwargs: None  # noqa: E731
    zero = lambda *args, **kwargs: 0  # noqa: E731
    stream = lambda *args, **kwargs: _Stream()  # noqa: E731
    return {
        "current_device": lambda: CPU,
        "set_device": nothing,
        "synchronize": nothing,
        "empty_cache": nothing,
        "Stream": _Stream,
        "Event": _Stream,
        "current_stream": stream,
        "default_stream": stream,
        "stream": lambda stream: contextlib.nullcontext(),
        "is_current_stream_capturing": lambda: False,
        "memory_allocated": zero,
        "max_memory_allocated": zero,
        "manual_seed": torch.default_generator.manual_seed,
        "manual_seed_all": nothing,
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
