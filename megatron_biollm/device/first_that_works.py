"""Kernels that a machine may turn out not to have: tried at their first call, never twice."""

import shutil
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Optional

import torch

from megatron_biollm.log import get_logger

logger = get_logger(__name__)

NOT_COMPILED = "torch, not compiled"


class FirstThatWorks:
    """The first of some functions whose first call does not fail.

    A failure is logged with its reason, and the next one takes over for good.

    Attributes:
        job: what the functions do, for the log.
        candidates: (name, function) of those that are left, the best first.
    """

    def __init__(self, job: str, *candidates: tuple[str, Callable[..., Any]]) -> None:
        self.job, self.candidates = job, list(candidates)

    @property
    def name(self) -> str:
        """Of the function that is in use, or will be tried first."""
        return self.candidates[0][0]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        while len(self.candidates) > 1:
            try:
                result = self.candidates[0][1](*args, **kwargs)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # compilers have exceptions of many kinds
                self._give_up_first(error)
            else:
                del self.candidates[1:]
                return result
        return self.candidates[0][1](*args, **kwargs)

    def _give_up_first(self, error: Exception) -> None:
        failed, _ = self.candidates.pop(0)
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        logger.warning(
            "%s: %s does not work here (%s: %s), so it is: %s",
            self.job, failed, type(error).__name__, reason, self.name,
        )  # fmt: skip


def why_no_compiler() -> Optional[str]:
    """Why torch.compile can make no kernels for a GPU here; None if it can."""
    if find_spec("triton") is None:
        return "triton is absent"
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        return "triton needs a C compiler, and there is none"
    return None


def compiled(
    job: str, function: Callable[..., Any], plain: Optional[Callable[..., Any]] = None
) -> FirstThatWorks:
    """A function by torch.compile, as it is where that cannot be.

    Nothing is compiled before the first call, as that takes seconds.

    Args:
        job: for the log.
        function: to be compiled.
        plain: in its place where it is not.
    """
    return unless_compiled(job, "torch.compile", torch.compile(function), plain or function)


def unless_compiled(
    job: str, name: str, function: Callable[..., Any], plain: Callable[..., Any]
) -> FirstThatWorks:
    """`function`, which torch.compile has made or will; `plain` where that cannot be."""
    reason = why_no_compiler()
    if reason is not None:
        return FirstThatWorks(job, (f"{NOT_COMPILED} ({reason})", plain))
    return FirstThatWorks(job, (name, function), (NOT_COMPILED, plain))
