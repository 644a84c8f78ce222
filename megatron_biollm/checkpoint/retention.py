"""Which checkpoints to keep, and how much disk they take."""

import shutil
from collections.abc import Iterable
from pathlib import Path

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


def forecast(needed: int, total_saves: int, keep_last: int, keep_every_count: int) -> str:
    """How much disk the whole run will hold at once, for the log.

    Args:
        needed: bytes of one checkpoint.
        total_saves: saves of the whole run.
        keep_last: as in `steps_to_delete`.
        keep_every_count: checkpoints that `keep_every` keeps for good.
    """
    # One more than is kept: the new one is committed before the oldest goes.
    kept = total_saves if keep_last == 0 else min(total_saves, keep_last + 1 + keep_every_count)
    return f"one checkpoint {gigabytes(needed)}, at most {kept} at once: {gigabytes(needed * kept)}"


def gigabytes(size: int) -> str:
    """`size` bytes as text, in GB."""
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"
