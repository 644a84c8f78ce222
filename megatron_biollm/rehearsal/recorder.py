"""Watches every operation of torch: storages, matrix products, collectives; and answers for what
cannot be known of a tensor without memory."""

from typing import Any

import torch
from torch._C import _distributed_c10d as c10d
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from megatron_biollm.rehearsal.memory import MemoryLog
from megatron_biollm.rehearsal.traffic import TrafficLog

DEVICE_OF = torch.ops.prim.device.default
SCALAR_OF = torch.ops.aten._local_scalar_dense.default


class Recorder(TorchDispatchMode):
    """Records while it is entered; entered inside `FakeTensorMode`, it sees operations first.

    Attributes:
        memory: storages that came and went.
        traffic: collectives. Over a fake process group nothing is sent.
        flops: of the matrix products, those of recomputation included; attention counts its whole
            matrix, causal or not.
    """

    def __init__(self, is_fake: bool = True, record: bool = True) -> None:
        super().__init__()
        self.is_fake, self.record = is_fake, record
        self.memory = MemoryLog()
        self.traffic = TrafficLog()
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if self.is_fake:
            if func is DEVICE_OF:
                return args[0].fake_device
            if func is SCALAR_OF:
                return _some_scalar(args[0])
            if func.namespace == "c10d":
                return self._collective(func, args)
            if func.namespace == "rehearsal":
                self._count(func, args, kwargs or {}, None)
                return None
        out = func(*args, **(kwargs or {}))
        if self.record:
            self._count(func, args, kwargs or {}, out)
            self._watch(out)
        return out

    def _collective(self, func: Any, args: tuple) -> Any:
        self.traffic.saw(func, args)
        done = c10d.FakeWork().boxed()
        returns = len(func._schema.returns)
        return (args[0], done) if returns == 2 else done if returns else None

    def _count(self, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)

    def _watch(self, out: Any) -> None:
        if isinstance(out, torch.Tensor):
            self.memory.saw(out.untyped_storage())
        elif isinstance(out, (tuple, list)):
            for item in out:
                if isinstance(item, torch.Tensor):
                    self.memory.saw(item.untyped_storage())


def _some_scalar(tensor: FakeTensor) -> float | int | bool:
    """The number that a small tensor was made of, as far as it is known. Else losses and norms of a
    rehearsal are finite, and codes say nothing special."""
    if tensor.constant is not None:
        return tensor.constant.item()
    if tensor.dtype == torch.bool:
        return True
    return 1.0 if tensor.is_floating_point() else 0
