"""Losses of a small run that every device and every layer implementation must give.

`losses.json` was written by `python -m tests.golden.golden` on a CPU in fp32. Written anew it must
be the same within 1e-5, or the change that made it differ must say why.
"""

import json
from pathlib import Path

from tests.distributed import World
from tests.integration.small_run import SmallRun, train_small

FILE = Path(__file__).parent / "losses.json"
STEPS = 20
RUNS = {"rows": SmallRun(steps=STEPS), "packed": SmallRun(steps=STEPS, packed=True)}
# Of fp32 on another machine, by other kernels or in another layout.
TOLERANCE = 1e-5


def golden_losses(name: str) -> list[float]:
    """Of each step; `rows`, or `packed` for rows of two documents that do not see each other."""
    return json.loads(FILE.read_text())[name]


def write(file: Path = FILE) -> None:
    """Trains the runs again and writes their losses."""
    world = World()
    losses = {
        name: [step.loss for step in world.run(1, train_small, run)[0]]
        for name, run in RUNS.items()
    }
    world.close()
    file.write_text(json.dumps(losses, indent=1) + "\n")


if __name__ == "__main__":
    write()
