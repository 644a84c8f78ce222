"""What becomes of a step whose loss or gradient norm is not what it should be.

Judged before the weights change, and by all ranks alike. Two published remedies: leaving the update
out, as OLMo 2 does beyond six standard deviations of the last 128 steps
(https://github.com/allenai/OLMo-core, src/olmo_core/optim/skip_step_optimizer.py), and going back
about 100 steps and jumping over 200 to 500 batches around the spike, as PaLM did
(https://arxiv.org/abs/2204.02311, section 5.1). The spread here is the median absolute deviation:
unlike a standard deviation, one outlier among the last steps does not hide the next.
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Optional

from megatron_biollm.config import UserError, option
from megatron_biollm.data.jumps import position_of, positions_of
from megatron_biollm.training.state import TrainState

ON_NON_FINITE = ("skip", "rewind", "stop")
ON_SPIKE = ("ignore", "report", "skip", "rewind", "stop")
# Of a normal distribution, the standard deviation over the median absolute deviation.
SIGMAS_PER_MAD = 1.4826
# A loss that hardly moves is no reason to take every small rise for a spike.
LEAST_SPREAD = 0.01


@dataclass
class StabilityConfig:
    """What to do about losses and gradient norms that are not finite or that spike.

    skip: the update is left out, its samples count as consumed. rewind: back to an older
    checkpoint, and over the samples around the step. stop: end the run. report: only say so.

    Raises:
        UserError: unknown actions, or numbers out of range.
    """

    on_non_finite: str = option("skip", "NaN or infinite loss or gradient norm: skip, rewind, stop")
    on_spike: str = option("report", "spike of either: ignore, report, skip, rewind or stop")
    window: int = option(128, "healthy steps that a spike is measured by")
    sigmas: float = option(6.0, "a spike lies this many (robust) deviations above their median")
    max_skips_in_a_row: int = option(5, "stop when more steps in a row would be skipped")
    max_rewinds: int = option(3, "stop when the run would rewind once more than this")
    rewind_margin: int = option(100, "steps that the checkpoint to go back to lies before the bad")
    jump_before: int = option(100, "steps before the bad one whose samples a rewind jumps over")
    jump_after: int = option(100, "steps after the bad one whose samples a rewind jumps over")

    def __post_init__(self) -> None:
        for name, known in (("on_non_finite", ON_NON_FINITE), ("on_spike", ON_SPIKE)):
            if getattr(self, name) not in known:
                raise UserError(
                    f"stability.{name}={getattr(self, name)} is unknown; choose one of "
                    f"{', '.join(known)}"
                )
        least = {"window": 8, "max_skips_in_a_row": 0, "max_rewinds": 0}
        least |= {"rewind_margin": 0, "jump_before": 0, "jump_after": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise UserError(f"stability.{name}={getattr(self, name)} must be at least {value}")
        if not self.sigmas > 0:
            raise UserError(f"stability.sigmas={self.sigmas} must be greater than 0")


class Action(IntEnum):
    """What to do with a step, mildest first: where ranks differ, the sternest holds."""

    APPLY = 0
    SKIP = 1
    REWIND = 2
    STOP = 3


@dataclass
class Incident:
    """A step that was not healthy.

    Attributes:
        step: its number, from 1.
        what: loss or grad_norm.
        kind: non-finite or spike.
        value: that was found; None where only another rank found it.
        threshold: that it exceeds, None for one that is not finite.
        median: of the steps before, likewise.
        action: report, skip, rewind or stop.
        reason: of another action than the configured one.
        consumed_samples: before the step.
        samples: the positions of the step's samples in the stream, as half-open ranges.
        batch_hash: of the step's batch.
        rewind_to: step that the run goes back to.
        jumped: positions that a rewind leaves out, as one half-open range.
    """

    step: int
    what: str
    kind: str
    value: Optional[float] = None
    threshold: Optional[float] = None
    median: Optional[float] = None
    action: str = "report"
    reason: str = ""
    consumed_samples: int = 0
    samples: list[list[int]] = field(default_factory=list)
    batch_hash: int = 0
    rewind_to: Optional[int] = None
    jumped: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        found = f"{self.what} {self.value:.6g}" if self.value is not None else self.what
        limit = ""
        if self.threshold is not None:
            limit = f" above {self.threshold:.6g} (median {self.median:.6g})"
        ranges = ", ".join(f"{first} to {end - 1}" for first, end in self.samples)
        return f"{self.kind} {found}{limit} at step {self.step} (samples {ranges})"


class Rewind(Exception):
    """The run goes back: raised on every rank at once, when the incident is recorded."""

    def __init__(self, incident: Incident) -> None:
        super().__init__(str(incident))
        self.incident = incident


class Unstable(RuntimeError):
    """The run stops: raised on every rank at once, before the weights changed."""


def spike_limit(recent: list[float], config: StabilityConfig) -> Optional[tuple[float, float]]:
    """(median, value above which the next one is a spike), or None after too few steps.

    recent: values of the last steps. As in OLMo, half a window is enough.
    """
    if config.on_spike == "ignore" or len(recent) < config.window // 2:
        return None
    median = statistics.median(recent)
    deviation = statistics.median(abs(value - median) for value in recent)
    spread = max(SIGMAS_PER_MAD * deviation, LEAST_SPREAD * abs(median))
    return median, median + config.sigmas * spread


class Guard:
    """Judges every step of a run, and keeps what the next are measured by in its state.

    Args:
        config: the policy.
        record: told of every incident, on every rank, before the run acts on it.
        checkpoint_before: state of the newest good checkpoint that is at most as new as a step,
            the same on every rank; None where there is none.
        rewinds: of the run so far.
    """

    def __init__(
        self,
        config: StabilityConfig,
        record: Callable[[Incident], None],
        checkpoint_before: Callable[[int], Optional[TrainState]] = lambda step: None,
        rewinds: int = 0,
    ) -> None:
        self.config, self.record = config, record
        self.checkpoint_before, self.rewinds = checkpoint_before, rewinds
        self.found: Optional[Incident] = None

    def judge(self, state: TrainState, loss: float, grad_norm: float) -> Action:
        """What this rank would do with the step after `state`."""
        self.found = self._find(state, loss, grad_norm)
        if self.found is None:
            return Action.APPLY
        finite = self.found.kind == "spike"
        wanted = self.config.on_spike if finite else self.config.on_non_finite
        return Action.APPLY if wanted == "report" else Action[wanted.upper()]

    def settle(self, state: TrainState, action: Action, samples: int, batch_hash: int) -> Action:
        """Records an incident, and acts on what the ranks agreed on.

        Args:
            state: before the step.
            action: agreed on; the update was made only if it is APPLY.
            samples: of the step.
            batch_hash: of its batch.

        Returns:
            APPLY or SKIP.

        Raises:
            Rewind: the run is to be restored, without the samples around the step.
            Unstable: the policy gives up.
        """
        found = self.found
        if action != Action.APPLY and found is None:
            found = Incident(state.step + 1, "loss or gradient norm", "on another rank")
        if found is None:
            return action
        found.consumed_samples, found.batch_hash = state.consumed_samples, batch_hash
        found.samples = positions_of(state.consumed_samples, samples, state.jumped_samples)
        if action is Action.REWIND:
            action = self._rewind(state, samples, found)
        if action is Action.SKIP and state.skips_in_a_row >= self.config.max_skips_in_a_row:
            found.reason = f"stability.max_skips_in_a_row={state.skips_in_a_row} is reached"
            action = Action.STOP
        found.action = "report" if action is Action.APPLY else action.name.lower()
        self.record(found)
        if action is Action.REWIND:
            raise Rewind(found)
        if action is Action.STOP:
            raise Unstable(_last_words(found))
        return action

    def remember(self, state: TrainState, action: Action, loss: float, grad_norm: float) -> None:
        """Adds a step to what the next ones are measured by.

        Spikes too: a median bears them, and a run whose level has risen for good must go on.
        """
        state.skips_in_a_row = state.skips_in_a_row + 1 if action is Action.SKIP else 0
        if not math.isfinite(loss) or not math.isfinite(grad_norm):
            return
        for recent, value in ((state.recent_losses, loss), (state.recent_grad_norms, grad_norm)):
            recent.append(value)
            del recent[: -self.config.window]

    def _find(self, state: TrainState, loss: float, grad_norm: float) -> Optional[Incident]:
        watched = (
            ("loss", loss, state.recent_losses),
            ("grad_norm", grad_norm, state.recent_grad_norms),
        )
        for what, value, _ in watched:
            if not math.isfinite(value):
                return Incident(state.step + 1, what, "non-finite", value)
        for what, value, recent in watched:
            limit = spike_limit(recent, self.config)
            if limit is not None and value > limit[1]:
                return Incident(state.step + 1, what, "spike", value, limit[1], limit[0])
        return None

    def _rewind(self, state: TrainState, samples: int, found: Incident) -> Action:
        """Says in `found` where to and over what; SKIP where no checkpoint is old enough."""
        config = self.config
        if self.rewinds >= config.max_rewinds:
            found.reason = f"stability.max_rewinds={config.max_rewinds} is reached"
            return Action.STOP
        target = self.checkpoint_before(state.step - config.rewind_margin)
        if target is None:
            found.reason = (
                f"no good checkpoint is stability.rewind_margin={config.rewind_margin} steps older"
            )
            return Action.SKIP
        first = state.consumed_samples - config.jump_before * samples
        first = position_of(max(first, target.consumed_samples), state.jumped_samples)
        last = state.consumed_samples + (1 + config.jump_after) * samples - 1
        found.rewind_to = target.step
        found.jumped = [first, position_of(last, state.jumped_samples) + 1]
        return Action.REWIND


def _last_words(found: Incident) -> str:
    reason = f"; {found.reason}" if found.reason else ""
    return (
        f"{found}{reason}; no checkpoint holds this step. Lower optimizer.lr, look at these "
        f"samples (tools/inspect_run.py), choose another action (stability.on_non_finite, "
        f"on_spike), or restart from an older checkpoint"
    )
