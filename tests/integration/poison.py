"""Runs tools/pretrain.py in this process with a step that goes wrong.

POISON: `WHAT WHEN`. WHAT: `gradient` (NaN in those of POISON_RANK, after their reduction), `loss`
(NaN on every rank), or `spike` (loss and gradients ten times as large). WHEN: the number of a step,
every time the run comes to it, or a batch's hash as in metrics.jsonl, whenever that is trained on.
"""

import contextlib
import math
import os
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

PRETRAIN = Path(__file__).parents[2] / "tools" / "pretrain.py"


@contextlib.contextmanager
def poisoned(what: str, when: str, rank: int = 0) -> Iterator[None]:
    """Within it every trainer of this process takes such steps."""
    from megatron_biollm.training.step import Trainer

    run = Trainer._run

    def poisoned_run(self: Any, batches: list) -> tuple:
        loss, *rest = run(self, batches)
        if not is_the_time(self, batches, when):
            return loss, *rest
        if what == "spike":
            for buffer in buffers(self):
                buffer.grad_data.mul_(10)
            return loss * 10, *rest
        if what == "gradient" and rank == int(os.environ["RANK"]):
            buffers(self)[0].grad_data.fill_(math.nan)
        return math.nan if what == "loss" else loss, *rest

    with mock.patch.object(Trainer, "_run", poisoned_run):
        yield


def is_the_time(trainer: Any, batches: list, when: str) -> bool:
    if len(when) == 16:
        return f"{trainer._global_hash(batches):016x}" == when
    return trainer.scheduler.num_steps + 1 == int(when)


def buffers(trainer: Any) -> list[Any]:
    return [buffer for chunk in trainer.model.chunks for buffer in chunk.buffers]


def pretrain_poisoned(overrides: list[str], what: str, when: str, rank: int = 0) -> Any:
    """Runs the recipe as this rank of the world; gives its step, or what it said in the end."""
    from megatron_biollm.config import UserError
    from tests.integration.recipe import pretrain_here

    with poisoned(what, when, rank):
        try:
            return pretrain_here(overrides)
        except UserError as error:
            return str(error)


def main() -> None:
    what, when = os.environ["POISON"].split()
    with poisoned(what, when, int(os.environ.get("POISON_RANK", "0"))):
        runpy.run_path(str(PRETRAIN), run_name="__main__")


if __name__ == "__main__":
    main()
