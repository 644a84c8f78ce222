"""What a rank sends and receives: every collective in order, with its group and its bytes."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

# How many times the payload leaves a GPU for n ranks, by NCCL's ring algorithms
# (https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md).
RING = {
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "all_gather": lambda n: (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "all_to_all": lambda n: (n - 1) / n,
    "send": lambda n: 1.0,
    "recv": lambda n: 0.0,
    "broadcast": lambda n: 1.0,
    "gather": lambda n: 1.0,
    "scatter": lambda n: 1.0,
    "reduce": lambda n: 1.0,
    "barrier": lambda n: 0.0,
}
# Names of the dispatcher's operations, and which argument is the whole payload.
OPERATIONS = {
    "allreduce_": ("all_reduce", 0),
    "allreduce_coalesced_": ("all_reduce", 0),
    "_allgather_base_": ("all_gather", 0),
    "allgather_": ("all_gather", 0),
    "allgather_coalesced_": ("all_gather", 0),
    "allgather_into_tensor_coalesced_": ("all_gather", 0),
    "_reduce_scatter_base_": ("reduce_scatter", 1),
    "reduce_scatter_": ("reduce_scatter", 1),
    "reduce_scatter_tensor_coalesced_": ("reduce_scatter", 1),
    "alltoall_": ("all_to_all", 1),
    "alltoall_base_": ("all_to_all", 1),
    "broadcast_": ("broadcast", 0),
    "reduce_": ("reduce", 0),
    "gather_": ("gather", 1),
    "scatter_": ("scatter", 0),
    "send": ("send", 0),
    "recv_": ("recv", 0),
    "recv_any_source_": ("recv", 0),
    "barrier": ("barrier", None),
    "monitored_barrier_": ("barrier", None),
}


class Call(NamedTuple):
    """One collective as one rank issues it.

    Attributes:
        group: tp, pp, dp, ...
        operation: all_reduce, all_gather, reduce_scatter, send, recv, ...
        bytes: of the whole tensor: the result of a gather, the input of a reduction.
        peer: global rank, of a send or receive; else None.
    """

    group: str
    operation: str
    bytes: int
    peer: int | None = None


@dataclass(frozen=True)
class Volume:
    """Attributes:
    calls: in a step.
    bytes: payload in a step.
    sent: bytes that leave the GPU, by the ring algorithms.
    """

    calls: float
    bytes: float
    sent: float


class TrafficLog:
    """Collectives in the order in which the rank issues them."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._names: dict[str, str] = {}
        self.members: dict[str, list[int]] = {}

    def name_groups(self, groups: Iterable[tuple[str, torch.distributed.ProcessGroup]]) -> None:
        """Gives process groups the names by which people know them; the first name stays."""
        for name, group in groups:
            if group.group_name not in self._names:
                self._names[group.group_name] = name
                self.members[name] = torch.distributed.get_process_group_ranks(group)

    def saw(self, func: Any, args: tuple) -> None:
        """Takes note of an operation of torch's dispatcher (`c10d::...`)."""
        operation, payload = OPERATIONS[func._schema.name.split("::")[1]]
        group = next(arg for arg in args if isinstance(arg, torch.ScriptObject) and _is_group(arg))
        name = self._name_of(torch.distributed.ProcessGroup.unbox(group))
        peer = self.members[name][args[2]] if operation in ("send", "recv") else None
        size = 0 if payload is None else _bytes(args[payload])
        self.calls.append(Call(name, operation, size, peer))

    def _name_of(self, group: torch.distributed.ProcessGroup) -> str:
        if group.group_name not in self._names:
            self.name_groups([(f"group {group.group_name}", group)])
        return self._names[group.group_name]


def tally(calls: list[Call]) -> Counter:
    """Calls and bytes by (group, operation)."""
    totals: Counter = Counter()
    for call in calls:
        totals[(call.group, call.operation, "calls")] += 1
        totals[(call.group, call.operation, "bytes")] += call.bytes
    return totals


def volumes(totals: dict, sizes: dict[str, int]) -> dict[tuple[str, str], Volume]:
    """Totals of a step with what leaves the GPU.

    Args:
        totals: as `tally` counts.
        sizes: ranks in each group.
    """
    pairs = sorted({key[:2] for key in totals})
    return {
        (group, operation): Volume(
            totals[(group, operation, "calls")],
            totals[(group, operation, "bytes")],
            totals[(group, operation, "bytes")] * RING[operation](max(sizes.get(group, 1), 1)),
        )
        for group, operation in pairs
    }


def _is_group(argument: torch.ScriptObject) -> bool:
    return argument._type().name() == "ProcessGroup"


def _bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.nbytes
    return sum(_bytes(item) for item in value)
