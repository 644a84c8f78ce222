"""Sides of a benchmark: what is timed beside each other in one run, and how they take turns.

Where all fit into memory at once (on the CPU) every side is built and they alternate step by step.
On a GPU each has the memory to itself: it is built, warmed up, timed and freed, and the sides are
visited in turns. Either way, whatever else the machine does meets all of them.
"""

import contextlib
import gc
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

import torch

from megatron_biollm.device.runtime import Device
from megatron_biollm.log import Progress, get_logger
from megatron_biollm.recipes.benchmarks.step_profile import profile_step
from megatron_biollm.recipes.benchmarks.timed_training import UNTIMED, timed
from megatron_biollm.training.optimizer import group_step_adam

logger = get_logger(__name__)
LONGEST_REASON = 300


@dataclass(frozen=True)
class Step:
    """What one side does over and over.

    Attributes:
        run: one step.
        kernels: what it computes with, for the report.
    """

    run: Callable[[], Any]
    kernels: str = ""


@dataclass
class Outcome:
    """What became of a side.

    Attributes:
        seconds: of its timed steps.
        peak_memory_bytes: most that torch's allocator held in them; None on the CPU, where sides
            share the process.
        profile: of one more step, where asked for.
        kernels: as `Step.kernels`.
        reason: why it could not run, or not to its end; empty where it did.
    """

    seconds: list[float] = field(default_factory=list)
    peak_memory_bytes: Optional[int] = None
    profile: Optional[dict[str, Any]] = None
    kernels: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Side:
    """One side of a benchmark.

    Attributes:
        name: in tables.
        build: makes its step; what it raises becomes the reason of an empty row.
        ours: runs in core's context.
        state: precision of weights, gradients and optimizer, for the report.
        elsewhere: times itself in a process of its own, in place of `build`; takes the number of
            steps to time.
        facts: more for its row.
    """

    name: str
    build: Optional[Callable[[], Step]] = None
    ours: bool = False
    state: str = ""
    elsewhere: Optional[Callable[[int], Outcome]] = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Turns:
    """How sides take turns.

    Attributes:
        repeats: timed steps of each side in all.
        visits: how often each is built anew; 0 builds all at once; None is 2 on a GPU, else 0.
        profile: record one step of each side after the timed ones.
        speaks: show progress.
    """

    repeats: int
    visits: Optional[int] = None
    profile: bool = False
    speaks: bool = True


def take_turns(sides: list[Side], device: Device, turns: Turns) -> dict[str, Outcome]:
    """Times all sides; the process group must be there already.

    Returns:
        An outcome for each side by name; one that failed has a reason and what it had until then.
    """
    outcomes = {side.name: Outcome() for side in sides}
    visits = turns.visits
    if visits is None:
        visits = 2 if device.kind == "cuda" else 0
    for visit in range(visits):
        share = turns.repeats * (visit + 1) // visits - turns.repeats * visit // visits
        last = visit == visits - 1
        for side in Progress(len(sides), f"visit {visit + 1}", "side").track(sides):
            with _or_reason(side, outcomes[side.name]) as goes_on:
                if goes_on and share:
                    _visit(side, outcomes[side.name], device, share, turns.profile and last)
            gc.collect()
            device.release_free_memory()
    if not visits:
        _all_at_once(sides, outcomes, device, turns)
    return outcomes


def _visit(side: Side, outcome: Outcome, device: Device, count: int, profile: bool) -> None:
    if side.elsewhere is not None:
        _take(outcome, side.elsewhere(count))
        return
    with _context(side, device):
        step = side.build()
        outcome.kernels = step.kernels
        for repeat in range(count + UNTIMED):
            if repeat == UNTIMED:
                device.reset_peak_memory()
            seconds = timed(step.run, device)
            if repeat >= UNTIMED:
                outcome.seconds.append(seconds)
        if device.kind == "cuda":
            held = device.peak_memory_bytes()
            outcome.peak_memory_bytes = max(held, outcome.peak_memory_bytes or 0)
        if profile:
            outcome.profile = profile_step(step.run, device)
    if "torch._dynamo" in sys.modules:
        # Compiled graphs would otherwise live on beside the next side.
        torch.compiler.reset()


def _all_at_once(
    sides: list[Side], outcomes: dict[str, Outcome], device: Device, turns: Turns
) -> None:
    steps: dict[str, Step] = {}
    for side in sides:
        with _or_reason(side, outcomes[side.name]):
            if side.elsewhere is not None:
                _take(outcomes[side.name], side.elsewhere(turns.repeats))
                continue
            with _context(side, device):
                steps[side.name] = side.build()
            outcomes[side.name].kernels = steps[side.name].kernels
    running = [side for side in sides if side.name in steps]
    count = turns.repeats + UNTIMED
    progress = Progress(count, "steps of each side", "step", enabled=turns.speaks)
    for repeat in progress.track(range(count)):
        for side in running:
            outcome, step = outcomes[side.name], steps[side.name]
            with _or_reason(side, outcome) as goes_on:
                if not goes_on:
                    continue
                with _context(side, device):
                    seconds = timed(step.run, device)
                if repeat >= UNTIMED:
                    outcome.seconds.append(seconds)
    for side in running if turns.profile else ():
        outcome, step = outcomes[side.name], steps[side.name]
        with _or_reason(side, outcome) as goes_on, _context(side, device):
            outcome.profile = profile_step(step.run, device) if goes_on else None


def _take(outcome: Outcome, found: Outcome) -> None:
    outcome.seconds += found.seconds
    outcome.peak_memory_bytes = found.peak_memory_bytes
    outcome.kernels, outcome.reason = found.kernels, found.reason


@contextlib.contextmanager
def _context(side: Side, device: Device) -> Iterator[None]:
    """Core's answers for CUDA would slow a peer down, so it runs outside them."""
    if not side.ours:
        yield
        return
    with device.core_context(), group_step_adam():
        yield


@contextlib.contextmanager
def _or_reason(side: Side, outcome: Outcome) -> Iterator[bool]:
    """Turns what a side raises into the reason of its row; gives whether it is still running."""
    try:
        yield not outcome.reason
    except Exception as error:
        outcome.reason = reason_of(error)
        logger.warning("%s is left out: %s", side.name, outcome.reason)


def reason_of(error: BaseException) -> str:
    """One line that says why something could not run."""
    text = " ".join(str(error).split()) or type(error).__name__
    name = type(error).__name__
    line = text if name == "UserError" else f"{name}: {text}"
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 3] + "..."


def side_row(side: Side, outcome: Outcome, tokens: float, flops: float) -> dict[str, Any]:
    """What the report says of one side, whose steps take `tokens` tokens of `flops` FLOPs each.

    Times and rates are None where it did not run; `reason` says why.
    """
    row: dict[str, Any] = {
        "name": side.name,
        "step_time_s": None,
        "fastest_s": None,
        "slowest_s": None,
        "tokens_per_second": None,
        "tflops": None,
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "state": side.state,
        "kernels": outcome.kernels,
        "reason": outcome.reason,
        **side.facts,
    }
    if outcome.reason or not outcome.seconds:
        return row
    median = statistics.median(outcome.seconds)
    return row | {
        "step_time_s": median,
        "fastest_s": min(outcome.seconds),
        "slowest_s": max(outcome.seconds),
        "tokens_per_second": tokens / median,
        "tflops": tokens * flops / median / 1e12,
    }
