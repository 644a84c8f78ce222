"""Runs tools/pretrain.py, and holds its first start after step WAIT_AT until it is asked to stop.

So the request comes in the middle of the run on slow and on fast machines.
"""

import os
import runpy
import time
from pathlib import Path

PRETRAIN = Path(__file__).parents[2] / "tools" / "pretrain.py"


def main() -> None:
    from megatron_biollm.recipes import hooks

    log = hooks.LogMetrics.__call__

    def call(self, state, row):
        log(self, state, row)
        if state.step == int(os.environ["WAIT_AT"]) and os.environ["RANK"] == "0":
            while not self.metrics.path.with_name("stop").exists():
                time.sleep(0.05)

    if int(os.environ.get("SLURM_RESTART_COUNT", 0)) == 0:
        hooks.LogMetrics.__call__ = call
    runpy.run_path(str(PRETRAIN), run_name="__main__")


if __name__ == "__main__":
    main()
