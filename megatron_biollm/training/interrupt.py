"""A run is asked to stop or to save, by a signal or by a file, and all ranks obey at one step."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from megatron_biollm.log import get_logger
from megatron_biollm.training.signals import STOP_SIGNALS, StopSignals

STOP_FILE, SAVE_FILE = "stop", "save"
# What a rank may want, by number: the largest number of all ranks is obeyed.
_REASONS = ("", *(number.name for number in STOP_SIGNALS), STOP_FILE)
logger = get_logger(__name__)


class StopTraining(Exception):
    """The run was asked to stop; raised on every rank at the same place."""


class _CutShort(Exception):
    pass


class Interrupt:
    """Asks every rank whether the run is to stop or to save.

    Signals count on whichever rank they arrive. The files `run_dir/stop` and `run_dir/save` are
    looked for by rank 0 alone.

    Args:
        signals: of this process.
        run_dir: folder of the trigger files.
        control: gloo group of all ranks.
    """

    def __init__(
        self, signals: StopSignals, run_dir: Path, control: torch.distributed.ProcessGroup
    ) -> None:
        self.signals, self.run_dir, self.control = signals, run_dir, control
        self.reason = ""
        self._save = False
        self._wished = 0

    def poll(self) -> None:
        """One small collective; every rank calls it at the same places.

        Raises:
            StopTraining: some rank was asked to stop. Every later call raises it again.
        """
        if not self.reason:
            self._agree()
        if self.reason:
            raise StopTraining(self.reason)

    @contextlib.contextmanager
    def cut_short(self) -> Iterator[Callable[..., None]]:
        """For work of one rank that the others wait for: what is yielded is called between its
        parts and leaves the `with` once this rank knows of a wish to stop. A poll must follow."""
        with contextlib.suppress(_CutShort):
            yield self._look

    def _look(self, *_: object) -> None:
        if self._wish():
            raise _CutShort

    def take_save(self) -> bool:
        """Whether the last polls have agreed on a save now; the wish is then fulfilled."""
        taken, self._save = self._save, False
        if taken:
            self._remove(SAVE_FILE)
        return taken

    def done(self) -> None:
        """The run has stopped as it was asked to: a start from now on is not stopped again."""
        self._remove(STOP_FILE)

    def _agree(self) -> None:
        wishes = torch.tensor([self._wish(), int(self._is_there(SAVE_FILE))])
        torch.distributed.all_reduce(wishes, torch.distributed.ReduceOp.MAX, group=self.control)
        stop, save = wishes.tolist()
        self._save = self._save or bool(save)
        if stop:
            file = _REASONS[stop] == STOP_FILE
            self.reason = f"the file {self.run_dir / STOP_FILE}" if file else _REASONS[stop]
            logger.info("asked to stop by %s", self.reason)

    def _wish(self) -> int:
        """What this rank wants; a wish stays, also when the file that told it is gone."""
        here = STOP_FILE if self._is_there(STOP_FILE) else self.signals.received or ""
        self._wished = max(self._wished, _REASONS.index(here))
        return self._wished

    def _is_there(self, name: str) -> bool:
        return self.control.rank() == 0 and (self.run_dir / name).exists()

    def _remove(self, name: str) -> None:
        if self.control.rank() == 0:
            with contextlib.suppress(OSError):
                (self.run_dir / name).unlink()
