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

    save_interval: int = option(1000, "save every this many steps; 0 only at the end")
    async_save: bool = option(False, "write in the background while training goes on")
    keep_last: int = option(3, "checkpoints to keep, newest first; 0 keeps all")
    keep_every: int = option(0, "keep every checkpoint whose step this divides; 0 none")
    load: Optional[str] = option(
        None, "checkpoint folder to start a new run from; a run's own checkpoints come first"
    )
    load_optimizer: bool = option(
        True, "with load: take optimizer state and step too, else only the weights"
    )
    fully_parallel_save: bool = option(True, "share the writing among data-parallel ranks")

    def __post_init__(self) -> None:
        for name in ("save_interval", "keep_last", "keep_every"):
            if getattr(self, name) < 0:
                raise UserError(f"checkpoint.{name}={getattr(self, name)} must not be negative")
