"""Options of saving and loading."""

from dataclasses import dataclass
from typing import Optional

from megatron_biollm.config import UserError, option


@dataclass
class CheckpointConfig:
    """When to save, what to keep, where to start.

    Raises:
        UserError: numbers out of range.
    """

    save_interval: int = option(
        1000, "save every this many steps, to load in any layout; 0 only at the end"
    )
    fast_save_interval: int = option(
        0, "save every this many steps in between, to load in this layout only; 0 never"
    )
    async_save: bool = option(False, "write in the background while training goes on")
    keep_last: int = option(3, "checkpoints to keep, newest first; 0 keeps all")
    keep_every: int = option(0, "keep every checkpoint whose step this divides; 0 none")
    keep_last_fast: int = option(
        2, "fast checkpoints to keep; those older than a newer one for any layout go anyway"
    )
    on_save_failure: str = option(
        "stop",
        "stop, or continue: train on without it and try at the next interval; at the end "
        "of a run it is an error in any case",
    )
    load: Optional[str] = option(
        None, "checkpoint folder to start a new run from; a run's own checkpoints come first"
    )
    load_optimizer: bool = option(
        True, "with load: take optimizer state and step too, else only the weights"
    )
    fully_parallel_save: bool = option(True, "share the writing among data-parallel ranks")

    def __post_init__(self) -> None:
        for name in ("save_interval", "fast_save_interval", "keep_last", "keep_every"):
            if getattr(self, name) < 0:
                raise UserError(f"checkpoint.{name}={getattr(self, name)} must not be negative")
        if self.keep_last_fast < 1:
            raise UserError(
                f"checkpoint.keep_last_fast={self.keep_last_fast} must be at least 1; "
                f"checkpoint.fast_save_interval=0 saves no fast ones"
            )
        if self.on_save_failure not in ("stop", "continue"):
            raise UserError(
                f"checkpoint.on_save_failure={self.on_save_failure} must be stop or continue"
            )
        if 0 < self.save_interval <= self.fast_save_interval:
            raise UserError(
                f"checkpoint.fast_save_interval={self.fast_save_interval} must be smaller than "
                f"checkpoint.save_interval={self.save_interval}, or 0: fast checkpoints are those "
                f"in between"
            )
