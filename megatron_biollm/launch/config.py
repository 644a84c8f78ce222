"""Options of what watches over a run."""

from dataclasses import dataclass

from megatron_biollm.config import UserError, option


@dataclass
class WatchConfig:
    """Heartbeats, the watchdog for hangs, and the report on stragglers.

    Raises:
        UserError: numbers out of range, or a watchdog without heartbeats.
    """

    heartbeat_seconds: float = option(
        10.0, "every rank writes run_dir/heartbeats this often; 0 never"
    )
    hang_timeout_minutes: float = option(
        5.0, "a rank without a sign of progress for so long ends the job with a report; 0 waits"
    )
    slow_timeout_minutes: float = option(
        30.0, "the same for start-up, the first step, and checkpoints"
    )
    straggler_interval: int = option(
        100, "steps between two comparisons of the ranks' times; 0 never"
    )
    straggler_threshold: float = option(
        0.1, "share of a step that a rank must lose against the median to be named"
    )

    def __post_init__(self) -> None:
        for name in (
            "heartbeat_seconds",
            "hang_timeout_minutes",
            "slow_timeout_minutes",
            "straggler_interval",
            "straggler_threshold",
        ):
            if getattr(self, name) < 0:
                raise UserError(f"watch.{name}={getattr(self, name)} must not be negative")
        self._check_hang_timeout()

    def _check_hang_timeout(self) -> None:
        hang, beat = self.hang_timeout_minutes * 60, self.heartbeat_seconds
        if hang and not beat:
            raise UserError(
                f"watch.hang_timeout_minutes={self.hang_timeout_minutes} needs heartbeats to tell "
                f"which rank hangs; set watch.heartbeat_seconds above 0, or both to 0"
            )
        if 0 < hang < 2 * beat:
            raise UserError(
                f"watch.hang_timeout_minutes={self.hang_timeout_minutes} is less than two beats of "
                f"watch.heartbeat_seconds={beat}; lengthen the one or shorten the other"
            )
        if hang > self.slow_timeout_minutes * 60:
            raise UserError(
                f"watch.slow_timeout_minutes={self.slow_timeout_minutes} is for what takes longer "
                f"than a step, so it must not be below watch.hang_timeout_minutes="
                f"{self.hang_timeout_minutes}"
            )
