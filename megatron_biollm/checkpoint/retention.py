"""Which checkpoints to keep, and how much disk they take."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from megatron_biollm.checkpoint.config import CheckpointConfig
from megatron_biollm.config import UserError


def steps_to_delete(steps: Iterable[int], keep_last: int, keep_every: int) -> list[int]:
    """Steps whose checkpoints retention removes.

    Args:
        steps: of the committed checkpoints.
        keep_last: how many of the newest to keep; 0 keeps all.
        keep_every: keep steps that this divides whatever their age; 0 none.
    """
    if keep_last == 0:
        return []
    old = sorted(steps)[:-keep_last]
    return [step for step in old if not (keep_every and step % keep_every == 0)]


def check_disk_space(directory: Path, needed: int) -> None:
    """Refuses to start a save that the disk cannot hold.

    Args:
        directory: where the checkpoint will be written.
        needed: bytes of the checkpoint.

    Raises:
        UserError: with both sizes and the remedy.
    """
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise UserError(
            f"the checkpoint needs {gigabytes(needed)} and {directory} has {gigabytes(free)} "
            f"free; free some space, lower checkpoint.keep_last or move run_dir. The last "
            f"committed checkpoint is untouched"
        )


def most_at_once(config: CheckpointConfig, first_step: int, train_iters: int) -> int:
    """The largest number of checkpoints on the disk at any time of a run.

    Args:
        config: when to save and what to keep.
        first_step: of the first save.
        train_iters: last step of the run, which is saved too.
    """
    interval = config.save_interval or train_iters
    steps = {first_step, train_iters, *range(interval, train_iters + 1, interval)}
    steps = {step for step in steps if step >= first_step}
    deleted = steps_to_delete(steps, config.keep_last, config.keep_every)
    # One more than is kept: the new one is committed before the oldest goes.
    return len(steps) - len(deleted) + (1 if deleted else 0)


def forecast(needed: int, count: int, free: int) -> tuple[str, bool]:
    """How much disk a run will hold at once, for the log, and whether the disk can.

    Args:
        needed: bytes of one checkpoint.
        count: checkpoints on the disk at once, at most.
        free: bytes free now.
    """
    text = (
        f"one checkpoint takes {gigabytes(needed)}, at most {count} at once "
        f"{gigabytes(needed * count)}; {gigabytes(free)} are free"
    )
    fits = needed * count <= free
    return text if fits else f"{text}: lower checkpoint.keep_last or free some space", fits


def gigabytes(size: int) -> str:
    """`size` bytes as text, in GB."""
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"
