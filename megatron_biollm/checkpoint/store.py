"""The folder of a run's checkpoints: all ranks act on it together, rank 0 alone changes names."""

import copy
import json
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Optional, TypeVar

import torch

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.commit import Committer, Save, SaveFailed, put_away
from megatron_biollm.checkpoint.config import CheckpointConfig
from megatron_biollm.checkpoint.formats import STATE, Format, read_format, why_unfit
from megatron_biollm.checkpoint.ranks import Ranks, gather
from megatron_biollm.checkpoint.retention import (
    check_disk_space,
    forecast,
    most_at_once,
)
from megatron_biollm.config import UserError
from megatron_biollm.log import get_logger
from megatron_biollm.training.state import TrainState

T = TypeVar("T")
logger = get_logger(__name__)


class CheckpointStore:
    """Finds good checkpoints, begins, commits and abandons saves, and removes old ones.

    Args:
        directory: `run_dir/checkpoints`.
        config: what to keep.
        control: gloo group of all ranks.
        write_sidecars: writes config, layout, tokenizer and versions into a folder; called on
            rank 0.
        train_iters: last step of the run, for the forecast of disk use; None makes none.
    """

    def __init__(
        self,
        directory: Path,
        config: CheckpointConfig,
        control: torch.distributed.ProcessGroup,
        write_sidecars: Callable[[Path], None],
        train_iters: Optional[int],
    ) -> None:
        self.directory, self.config = directory, config
        self.train_iters = train_iters
        self.ranks = Ranks(control)
        # Steps whose checkpoints are damaged; they neither count in retention nor go.
        self.refused: set[int] = set()
        self.commits = Committer(directory, config, self.ranks, write_sidecars, self.refused)
        self.has_forecast = train_iters is None

    def newest_usable(
        self, directory: Path, fits: Callable[[Path], bool], use: Callable[[Path], T]
    ) -> Optional[T]:
        """Uses the newest good checkpoint in `directory` that fits.

        Those that are bad or do not fit are named and passed over; they stay where they are.

        Args:
            directory: of many checkpoints.
            fits: whether a good one can be loaded; asked by all ranks at once.
            use: takes a folder whose files are good, but for those of tensors, which it verifies.

        Returns:
            What `use` does, or None where there is no checkpoint at all.

        Raises:
            UserError: there are checkpoints, and none can be used.
        """
        folders = self.ranks.on_first(verify.step_folders, directory)
        unfit: list[Path] = []
        problems = []
        for folder in folders:
            try:
                self.check(folder, values=False)
                if fits(folder):
                    used = use(folder)
                    self._say_lost_steps(unfit, folder)
                    return used
                unfit.append(folder)
                problems.append(why_unfit(folder))
            except verify.BadCheckpoint as problem:
                problems.append(str(problem))
                self._refuse(folder, problem)
        if folders:
            raise UserError(
                f"none of the {len(folders)} checkpoints in {directory} can be used, the newest: "
                f"{problems[0]}. To start anew, move them away or give another run_dir"
            )
        return None

    def _refuse(self, folder: Path, problem: verify.BadCheckpoint) -> None:
        if self.ranks.is_first:
            logger.warning("refused: %s", problem)
        if folder.parent == self.directory:
            self.refused.add(verify.step_of(folder))

    def _say_lost_steps(self, unfit: list[Path], folder: Path) -> None:
        if not unfit or not self.ranks.is_first:
            return
        lost = verify.step_of(unfit[0]) - verify.step_of(folder)
        logger.warning(
            "passed over: %s. Going on from %s (%s), so that %d steps are trained again; "
            "nothing was deleted",
            "; ".join(why_unfit(path) for path in unfit),
            folder,
            read_format(folder).name,
            lost,
        )

    def newest_good_before(self, step: int, fits: Callable[[Path], bool]) -> Optional[TrainState]:
        """State of the newest checkpoint of `step` or older that is good and fits, if any."""
        for folder in self.ranks.on_first(verify.step_folders, self.directory):
            if verify.step_of(folder) <= step and self.problem(folder) is None and fits(folder):
                return self.ranks.on_first(read_state, folder)
        return None

    def discard(self, unwanted: Callable[[TrainState], bool]) -> None:
        """Removes every checkpoint whose state is unwanted, good or not."""
        self.commits.wait()
        self.ranks.on_first(self._discard, unwanted)

    def problem(self, folder: Path) -> Optional[str]:
        """As `problem_on_any_rank`, for the ranks of this run."""
        return problem_on_any_rank(folder, self.ranks.control)

    def check(self, folder: Path, values: bool = True) -> Path:
        """The folder itself, if nothing is wrong with it.

        values: digest the files of tensors too.

        Raises:
            BadCheckpoint: something is, on every rank.
        """
        problem = problem_on_any_rank(folder, self.ranks.control, values)
        if problem is not None:
            raise verify.BadCheckpoint(problem)
        return folder

    def begin(self, state: TrainState, wanted: Format, needed: int) -> Save:
        """Makes the folder to write into, once the remains of earlier saves are gone.

        Args:
            state: of the save.
            wanted: how it is written.
            needed: bytes that all ranks will write.

        Raises:
            SaveFailed: the disk cannot hold it, or the folder cannot be made.
        """
        try:
            partial = self.ranks.on_first(self._make_partial, state.step, needed)
        except UserError as error:
            raise SaveFailed(str(error)) from error
        return Save(copy.deepcopy(state), wanted, partial)

    def remove_unfinished(self) -> None:
        """Removes what saves that were cut off have left."""
        if self.ranks.is_first:
            for folder in verify.unfinished_folders(self.directory):
                shutil.rmtree(folder, ignore_errors=True)

    def free_bytes(self) -> int:
        """What the disk can still take."""
        return shutil.disk_usage(self.directory).free

    def _make_partial(self, step: int, needed: int) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.commits.wait()
        self.remove_unfinished()
        check_disk_space(self.directory, needed)
        self._say_forecast(step, needed)
        # A name of its own: a writer that outlived its killed run cannot write into it.
        name = f"{verify.step_folder(self.directory, step).name}.{uuid.uuid4().hex[:8]}"
        folder = self.directory / f"{name}{verify.PARTIAL}"
        folder.mkdir()
        return folder

    def _say_forecast(self, step: int, needed: int) -> None:
        if self.has_forecast:
            return
        self.has_forecast = True
        count = most_at_once(self.config, step, self.train_iters)
        text, fits = forecast(needed, count, self.free_bytes())
        (logger.info if fits else logger.warning)("%s: %s", self.directory, text)

    def _discard(self, unwanted: Callable[[TrainState], bool]) -> None:
        for folder in verify.step_folders(self.directory):
            try:
                state = read_state(folder)
            except (OSError, ValueError, TypeError):  # damaged, which `newest_good` names
                continue
            if unwanted(state):
                logger.info("removed %s, which the run has gone back over", folder)
                for doomed in put_away(folder):
                    shutil.rmtree(doomed, ignore_errors=True)
                self.refused.discard(verify.step_of(folder))


def read_state(folder: Path) -> TrainState:
    """How far the run of a checkpoint had come; fields that an older version had not are empty."""
    stored = json.loads((folder / STATE).read_text())
    return TrainState(**{name: stored[name] for name in asdict(TrainState()) if name in stored})


def problem_on_any_rank(
    folder: Path, control: torch.distributed.ProcessGroup, values: bool = True
) -> Optional[str]:
    """What is wrong with a checkpoint; every rank reads its share and hears the same.

    values: as for `find_problems`.
    """
    mine = next(verify.find_problems(folder, control.rank(), control.size(), values), None)
    return next((p for p in gather(mine, control) if p is not None), None)
