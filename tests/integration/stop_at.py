"""A pretraining run in which a rank is sent a signal at a chosen moment."""

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from unittest import mock

from tests.integration.recipe import pretrain_here


def pretrain_stopped(overrides: list[str], moment: str, rank: int) -> int:
    """The recipe, in which `rank` gets SIGUSR1 at `moment`; gives the step it has come to.

    Args:
        overrides: of the run.
        moment: `index`, `model`, `restored`, `step N`, `evaluation N` (its N-th batch, counted
            from the start of the process), or `save` (just begun).
        rank: of the process that gets the signal.
    """
    with signalled(moment) if os.environ["RANK"] == str(rank) else contextlib.nullcontext():
        return pretrain_here(overrides)


@contextlib.contextmanager
def signalled(moment: str) -> Iterator[None]:
    from megatron_biollm.checkpoint.sharded import Checkpointer
    from megatron_biollm.recipes import pretrain, run_task
    from megatron_biollm.recipes.hooks import LogMetrics
    from megatron_biollm.training.step import Trainer

    name, _, number = moment.partition(" ")
    place, attribute, condition = {
        "index": (pretrain, "check_vocabulary", _always),
        "model": (run_task, "parallelize", _always),
        "restored": (run_task, "take_hyperparameters", _always),
        "step": (LogMetrics, "__call__", lambda self, state, row: state.step == int(number)),
        "evaluation": (Trainer, "_schedule", _nth_evaluation(int(number or 0))),
        "save": (Checkpointer, "_plan", _always),
    }[name]
    with mock.patch.object(place, attribute, _telling(getattr(place, attribute), condition)):
        yield


def _telling(function: Callable, condition: Callable[..., bool]) -> Callable:
    """`function`, before which the process gets the signal where `condition` holds."""

    def call(*args, **kwargs):
        if condition(*args, **kwargs):
            os.kill(os.getpid(), signal.SIGUSR1)
        return function(*args, **kwargs)

    return call


def _always(*args, **kwargs) -> bool:
    return True


def _nth_evaluation(number: int) -> Callable[..., bool]:
    seen = itertools.count(1)
    return lambda self, batches, forward_only: forward_only and next(seen) == number
