"""Runs tools/pretrain.py in this process, and kills a rank with signal 9 where DIE_AT says; once,
if torchrun starts it again.

DIE_AT: `step N`, or a moment of the first save: `planned`, `writing`, `digesting`, `marked`,
`removing`. DIE_RANK: the rank. DIE_SIGNAL: another signal than SIGKILL.
"""

import os
import runpy
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

PRETRAIN = Path(__file__).parents[2] / "tools" / "pretrain.py"


def die() -> None:
    os.kill(os.getpid(), signal.Signals[os.environ.get("DIE_SIGNAL", "SIGKILL")])


def dying(function: Callable, condition: Callable[..., bool] = lambda *args: True) -> Callable:
    """`function` that is the last thing the rank wanted to do."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if condition(*args):
            die()
        return function(*args, **kwargs)

    return call


def die_at_step(step: int) -> None:
    from megatron_biollm.recipes import hooks

    log = hooks.LogMetrics.__call__
    hooks.LogMetrics.__call__ = dying(log, lambda self, state, row: state.step == step)


def die_planned() -> None:
    """The folder is there, no tensor yet."""
    from megatron_biollm.checkpoint.sharded import Checkpointer

    Checkpointer._plan = dying(Checkpointer._plan)


def die_writing() -> None:
    """A writer, a process of its own, has filled its first file."""
    rank, sync = os.getpid(), os.fsync

    def fsync(descriptor: int) -> None:
        if os.getpid() != rank:
            os.kill(rank, signal.SIGKILL)
            die()
        sync(descriptor)

    os.fsync = fsync


def die_digesting() -> None:
    """A writer has filled its files, the marker is not written."""
    from megatron_biollm.checkpoint.digesting import DigestingFile

    rank = os.getpid()

    def digest(file: DigestingFile) -> None:
        os.kill(rank, signal.SIGKILL)
        die()

    DigestingFile.digest = digest


def die_marked() -> None:
    """The marker is written, the folder still has its unfinished name."""
    Path.rename = dying(Path.rename, lambda path, target: path.suffix == ".partial")


def die_removing() -> None:
    """The new checkpoint is committed, and the old one about to be removed."""
    shutil.rmtree = dying(shutil.rmtree, lambda path, **_: Path(path).name.endswith(".old.partial"))


def main() -> None:
    first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    if first and os.environ["DIE_RANK"] == os.environ.get("RANK", "0"):
        moment, _, step = os.environ["DIE_AT"].partition(" ")
        if moment == "step":
            die_at_step(int(step))
        else:
            globals()[f"die_{moment}"]()
    runpy.run_path(str(PRETRAIN), run_name="__main__")


if __name__ == "__main__":
    main()
