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


def fast_to_delete(steps: Iterable[int], newest_reshardable: int, keep_last_fast: int) -> list[int]:
    """Steps whose fast checkpoints retention removes: whoever needs one takes a newer one.

    Args:
        steps: of the committed fast checkpoints.
        newest_reshardable: step of the newest checkpoint for any layout, or -1.
        keep_last_fast: how many of the newest to keep, at least 1.
    """
    ordered = sorted(steps)
    worthless = [step for step in ordered if step < newest_reshardable]
    return worthless + ordered[len(worthless) : -keep_last_fast]


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
    """The largest number of checkpoints on the disk at any time of a run, fast ones included.

    Fast ones are as large as the others: they differ in how the same values are cut.

    Args:
        config: when to save and what to keep.
        first_step: of the first save.
        train_iters: last step of the run, which is saved too.
    """
    interval = config.save_interval or train_iters
    steps = {first_step, train_iters, *range(interval, train_iters + 1, interval)}
    steps = {step for step in steps if step >= first_step}
    deleted = steps_to_delete(steps, config.keep_last, config.keep_every)
    # One more than is kept: the new one is committed before the oldest goes, and so do the fast
    # ones before it.
    reshardable = len(steps) - len(deleted) + (1 if deleted else 0)
    return reshardable + min(_fast_between(config, interval), config.keep_last_fast)


def _fast_between(config: CheckpointConfig, interval: int) -> int:
    """The most fast saves between two others that are `interval` steps apart."""
    if not config.fast_save_interval:
        return 0
    whole, rest = divmod(interval, config.fast_save_interval)
    return whole if rest else whole - 1


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
