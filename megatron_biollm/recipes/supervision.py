"""What watches over a run from its start to its end: requests to stop, status, phases."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

import torch

from megatron_biollm.checkpoint.sharded import Checkpointer
from megatron_biollm.config import UserError
from megatron_biollm.launch.heartbeat import Pulse
from megatron_biollm.launch.status import RunStatus, read_status
from megatron_biollm.launch.watchdog import Watchdog
from megatron_biollm.log import get_logger
from megatron_biollm.recipes.run_config import RunConfig
from megatron_biollm.training.interrupt import Interrupt, StopTraining
from megatron_biollm.training.phases import Phases
from megatron_biollm.training.signals import StopSignals
from megatron_biollm.training.state import TrainState

logger = get_logger(__name__)


class StatusKeeper:
    """Keeps `run_dir/status.json` true; rank 0 writes it.

    A refusal is written by whichever rank meets it, since it may be the only one.
    """

    def __init__(self, config: RunConfig, rank: int) -> None:
        self.run_path, self.train_iters = config.run_path, config.training.train_iters
        self.speaks = rank == 0
        before = read_status(config.run_path)
        self.step = before.step if before else 0
        self.committed_step = before.committed_step if before else None
        self.state = TrainState()
        self.checkpointer: Optional[Checkpointer] = None

    def follow(self, state: TrainState, checkpointer: Checkpointer) -> None:
        """From now on step and committed step are those of `state` and `checkpointer`."""
        self.state, self.checkpointer = state, checkpointer
        self.committed_step = checkpointer.committed_step
        self.write("running")

    def committed(self) -> None:
        """Writes an entry if a checkpoint has been committed since the last one."""
        if self.checkpointer.committed_step != self.committed_step:
            self.write("running")

    def write(self, state: str, reason: str = "") -> None:
        """Replaces the entry; that it cannot be written is no reason to end a run."""
        if self.checkpointer is not None:
            self.step, self.committed_step = self.state.step, self.checkpointer.committed_step
        if not self.speaks and state != "refused":
            return
        entry = RunStatus(state, self.step, self.train_iters, self.committed_step, reason)
        try:
            entry.write(self.run_path)
        except OSError as error:
            logger.warning("status.json cannot be written (%s); it is out of date", error)

    def ended(self) -> None:
        """Writes the entry of a run whose steps are done."""
        if self.state.step >= self.train_iters:
            self.write("finished")
        else:
            self.write("stopped", "training.exit_interval")


@dataclass
class Supervision:
    """Attributes:
    interrupt: asked after every step.
    status: written at every change.
    phases: what this rank is doing.
    """

    interrupt: Interrupt
    status: StatusKeeper
    phases: Phases

    def begin(self, state: TrainState, checkpointer: Checkpointer) -> None:
        """The run goes on from `state`.

        Raises:
            StopTraining: or rather not.
        """
        self.phases.resume(state.step)
        self.status.follow(state, checkpointer)
        self.interrupt.poll()


@contextlib.contextmanager
def supervised(
    config: RunConfig, signals: StopSignals, control: torch.distributed.ProcessGroup
) -> Iterator[Supervision]:
    """Says in `run_dir/status.json` how the run inside the `with` stands and how it ended.

    A request to stop ends the `with` like its last line. A crash leaves the status at "running".
    """
    status = StatusKeeper(config, control.rank())
    interrupt, phases = Interrupt(signals, config.run_path, control), Phases()
    status.write("running")
    try:
        with watched(config, control, phases):
            yield Supervision(interrupt, status, phases)
    except StopTraining as stop:
        interrupt.done()
        status.write("stopped", str(stop))
        logger.info("stopped after step %d; the same command goes on from there", status.step)
    except UserError as error:
        status.write("refused", str(error))
        raise
    else:
        status.ended()


@contextlib.contextmanager
def watched(
    config: RunConfig, control: torch.distributed.ProcessGroup, phases: Phases
) -> Iterator[None]:
    """Inside the `with` this rank's heart beats, and its watchdog ends the process if the main
    thread hangs. A collective that gives up by itself is explained likewise."""
    options, place = config.watch, (config.run_path, control.rank())
    if not options.heartbeat_seconds:
        yield
        return
    pulse = Pulse(*place, options.heartbeat_seconds, lambda: phases.view)
    watchdog = Watchdog(*place, control.size(), options, lambda: phases.view)
    pulse.start()
    if options.hang_timeout_minutes:
        watchdog.start()
        if control.rank() == 0:
            _warn_of_timeouts(config)
    try:
        yield
    except Exception as error:
        if "timed out" in str(error).lower():
            watchdog.explain(f"a collective gave up: {str(error).splitlines()[0]}")
        raise
    finally:
        watchdog.stop()
        pulse.stop()


def _warn_of_timeouts(config: RunConfig) -> None:
    """NCCL ends the process at its timeout, and names nobody."""
    hang, give_up = (
        config.watch.hang_timeout_minutes,
        config.parallel.distributed_timeout_minutes,
    )
    if hang >= give_up:
        logger.warning(
            "watch.hang_timeout_minutes=%g is not below parallel.distributed_timeout_minutes=%d: "
            "collectives may give up before the watchdog has looked at who hangs",
            hang,
            give_up,
        )


@contextlib.contextmanager
def saved_at_the_end(
    checkpointer: Checkpointer, state: TrainState, phases: Phases
) -> Iterator[None]:
    """Saves when the steps inside are done or were asked to stop, and waits for the save."""
    first = state.step
    try:
        yield
    except StopTraining:
        with phases("checkpoint", slow=True):
            if state.step > first:
                checkpointer.save(state)
            checkpointer.finish()
        raise
    with phases("checkpoint", slow=True):
        checkpointer.save(state)
        checkpointer.finish()
