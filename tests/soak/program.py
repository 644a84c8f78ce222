"""Runs tools/pretrain.py in this process, paced, and with a NaN where the soak wants one.

SOAK_PACE: seconds that every step takes longer, so that a fault can be aimed at a step.
SOAK_POISON: `RANK HASH`: NaN in that rank's gradients whenever the batch of that hash comes.
"""

import contextlib
import os
import runpy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

PRETRAIN = Path(__file__).parents[2] / "tools" / "pretrain.py"


@contextlib.contextmanager
def paced(seconds: float) -> Iterator[None]:
    from megatron_biollm.recipes.hooks import LogMetrics

    log = LogMetrics.__call__

    def slow(self: Any, *args: Any) -> None:
        log(self, *args)
        time.sleep(seconds)

    with mock.patch.object(LogMetrics, "__call__", slow):
        yield


def main() -> None:
    with contextlib.ExitStack() as stack:
        if pace := float(os.environ.get("SOAK_PACE", "0")):
            stack.enter_context(paced(pace))
        if poison := os.environ.get("SOAK_POISON"):
            from tests.integration.poison import poisoned

            rank, batch = poison.split()
            stack.enter_context(poisoned("gradient", batch, int(rank)))
        runpy.run_path(str(PRETRAIN), run_name="__main__")


if __name__ == "__main__":
    main()
