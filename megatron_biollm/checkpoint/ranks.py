"""Deciding together: rank 0 acts and tells, every rank hears the same.

On a network file system two ranks may see two listings; and a failure that one rank alone knows of
leaves the others waiting for it.
"""

from collections.abc import Callable
from typing import Any, Optional, TypeVar

import torch

from megatron_biollm.config import UserError

T = TypeVar("T")


class Ranks:
    """All ranks of a run, over a gloo group beside the training streams.

    Args:
        control: the group.
    """

    def __init__(self, control: torch.distributed.ProcessGroup) -> None:
        self.control, self.rank, self.size = control, control.rank(), control.size()

    @property
    def is_first(self) -> bool:
        """This is the rank that acts for all."""
        return self.rank == 0

    def on_first(self, act: Callable[..., T], *args: Any) -> T:
        """Runs `act(*args)` on rank 0; every rank gets its value.

        Raises:
            UserError: on every rank, where it failed on rank 0.
        """
        answer = attempt(act, *args) if self.is_first else None
        value, problem = self.from_first(answer)
        if problem is not None:
            raise UserError(problem)
        return value

    def from_first(self, value: Any) -> Any:
        """What rank 0 gives."""
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0, group=self.control)
        return values[0]

    def number_from_first(self, value: int) -> int:
        """The same of a number, at a fraction of the time."""
        number = torch.tensor([value])
        torch.distributed.broadcast(number, src=0, group=self.control)
        return int(number.item())

    def gather(self, value: T) -> list[T]:
        """What every rank gives, by rank."""
        return gather(value, self.control)

    def gather_on_first(self, value: T) -> Optional[list[T]]:
        """The same on rank 0 alone."""
        values = [None] * self.size if self.is_first else None
        torch.distributed.gather_object(value, values, dst=0, group=self.control)
        return values

    def any(self, value: bool) -> bool:
        """Whether it is true on any rank."""
        return self.sum(int(value)) > 0

    def sum(self, value: int) -> int:
        """Over all ranks."""
        total = torch.tensor([value])
        torch.distributed.all_reduce(total, group=self.control)
        return int(total.item())


def gather(value: T, group: torch.distributed.ProcessGroup) -> list[T]:
    """What every rank of the group gives, by rank."""
    values = [None] * group.size()
    torch.distributed.all_gather_object(values, value, group=group)
    return values


def attempt(act: Callable[..., T], *args: Any) -> tuple[Optional[T], Optional[str]]:
    """The value of `act(*args)`, or what went wrong."""
    try:
        return act(*args), None
    except Exception as error:
        return None, str(error) if isinstance(error, UserError | OSError) else repr(error)
