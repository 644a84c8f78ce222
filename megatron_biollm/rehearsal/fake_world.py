"""One rank of a world that is not there: a process group that answers, tensors without memory."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from megatron_biollm.parallel.process_groups import destroy_process_groups
from megatron_biollm.rehearsal.recorder import Recorder


@contextlib.contextmanager
def fake_world(rank: int, size: int, record: bool = True) -> Iterator[Recorder]:
    """Plays one rank of `size`; tensors made inside have shapes and no memory.

    Objects that ranks gather from one another are taken to be equal on all ranks, as those are
    that core gathers while it builds (the kinds of its parameter groups).

    Args:
        rank: to play.
        size: ranks in all.
        record: note memory and FLOPs too; collectives are answered in any case.
    """
    # Registers torch's process group without a network.
    from torch.testing._internal.distributed.fake_pg import FakeStore

    recorder = Recorder(record=record)
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        # Core asks whether two tensors share memory, by an address that these do not have.
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        for target, name, value in PATCHES:
            stack.enter_context(mock.patch.object(target, name, value))
        torch.distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=size)
        stack.callback(destroy_process_groups)
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(recorder)
        yield recorder


def _all_gather_object(objects: list, mine: Any, group: Any = None) -> None:
    objects[:] = [mine] * len(objects)


def _broadcast_object_list(objects: list, *args: Any, **kwargs: Any) -> None:
    pass


def _to_list(tensor: torch.Tensor) -> Any:
    return tensor.item() if tensor.dim() == 0 else [_to_list(part) for part in tensor]


def _to_numpy(tensor: torch.Tensor) -> numpy.ndarray:
    """Zeros: a rehearsal reads no numbers, it only hashes them for the log."""
    return numpy.zeros(tuple(tensor.shape))


def _convert(module: torch.nn.Module, convert: Any, recurse: bool = True) -> torch.nn.Module:
    """Stands for moves and casts of a whole module, which torch cannot do to tensors without
    memory. None is needed: modules are built on the right device in the right type."""
    for name, parameter in module.named_parameters():
        with torch.no_grad():
            changed = convert(parameter)
        if (changed.dtype, changed.device) != (parameter.dtype, parameter.device):
            raise TypeError(f"{name} is built as {parameter.dtype} and then made {changed.dtype}")
    return module


PATCHES = (
    (torch.distributed, "all_gather_object", _all_gather_object),
    (torch.distributed, "broadcast_object_list", _broadcast_object_list),
    (torch.Tensor, "tolist", _to_list),
    (torch.Tensor, "numpy", _to_numpy),
    (torch.nn.Module, "_apply", _convert),
)
