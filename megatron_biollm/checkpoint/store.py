"""The folder of a run's checkpoints: all ranks act on it together, rank 0 alone changes names.

Every decision is taken by rank 0 and told to the others, since on a network file system two ranks
may see two listings; every failure is told to all, so that no rank waits for one that gave up.
"""

import copy
import json
import shutil
import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Optional, TypeVar

import torch

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.config import CheckpointConfig
from megatron_biollm.checkpoint.formats import STATE, Format, read_format, why_unfit
from megatron_biollm.checkpoint.retention import (
    check_disk_space,
    forecast,
    gigabytes,
    most_at_once,
    steps_to_delete,
)
from megatron_biollm.config import UserError
from megatron_biollm.log import get_logger
from megatron_biollm.training.state import TrainState

T = TypeVar("T")
logger = get_logger(__name__)


@dataclass
class Save:
    """A save under way: of what, where to, and this rank's share of the digests."""

    state: TrainState
    format: Format
    partial: Path
    digesting: Optional[threading.Thread] = None
    digests: verify.Digests = field(default_factory=dict)
    problem: Optional[str] = None


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
        self.directory, self.config, self.control = directory, config, control
        self.write_sidecars, self.train_iters = write_sidecars, train_iters
        self.rank, self.size = control.rank(), control.size()
        self.refused: set[int] = set()
        self.has_forecast = train_iters is None

    def newest_good(self, directory: Path, fits: Callable[[Path], bool]) -> Optional[Path]:
        """The newest good checkpoint in `directory` that fits.

        Those that are bad or do not fit are named and passed over; they stay where they are.

        Args:
            directory: of many checkpoints.
            fits: whether a good one can be loaded; asked by all ranks at once.

        Returns:
            Its folder, or None where there is no checkpoint at all.

        Raises:
            UserError: there are checkpoints, and none can be used.
        """
        folders = self.on_first(verify.step_folders, directory)
        unfit: list[Path] = []
        problems = []
        for folder in folders:
            problem = self.problem(folder)
            if problem is None and fits(folder):
                self._say_lost_steps(unfit, folder)
                return folder
            problems.append(problem or why_unfit(folder))
            if problem is None:
                unfit.append(folder)
                continue
            if self.rank == 0:
                logger.warning("refused: %s", problem)
            if directory == self.directory:
                self.refused.add(verify.step_of(folder))
        if folders:
            raise UserError(
                f"none of the {len(folders)} checkpoints in {directory} can be used, the newest: "
                f"{problems[0]}. To start anew, move them away or give another run_dir"
            )
        return None

    def _say_lost_steps(self, unfit: list[Path], folder: Path) -> None:
        if not unfit or self.rank != 0:
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
        for folder in self.on_first(verify.step_folders, self.directory):
            if verify.step_of(folder) <= step and self.problem(folder) is None and fits(folder):
                return self.on_first(read_state, folder)
        return None

    def discard(self, unwanted: Callable[[TrainState], bool]) -> None:
        """Removes every checkpoint whose state is unwanted, good or not."""
        self.on_first(self._discard, unwanted)

    def problem(self, folder: Path) -> Optional[str]:
        """As `problem_on_any_rank`, for the ranks of this run."""
        return problem_on_any_rank(folder, self.control)

    def begin(self, state: TrainState, wanted: Format, needed: int) -> Save:
        """Makes the folder to write into, once the remains of earlier saves are gone.

        Args:
            state: of the save.
            wanted: how it is written.
            needed: bytes that all ranks will write.

        Raises:
            UserError: the disk cannot hold it, or the folder cannot be made.
        """
        partial = self.on_first(self._make_partial, state.step, needed)
        return Save(copy.deepcopy(state), wanted, partial)

    def remove_unfinished(self) -> None:
        """Removes what saves that were cut off have left."""
        if self.rank == 0:
            for folder in verify.unfinished_folders(self.directory):
                shutil.rmtree(folder, ignore_errors=True)

    def start_digests(self, save: Save) -> None:
        """Adds the sidecars, then digests in a thread, so that training goes on.

        Every rank digests the files it wrote (core names them `__<rank>_*`), which its machine
        still holds in memory; rank 0 those of nobody.
        """
        self.on_first(self._complete, save)
        save.digesting = threading.Thread(target=_digest, args=(save, self.rank))
        save.digesting.start()

    def is_digested(self, save: Save) -> bool:
        """Whether every rank has finished; to be asked by all at once."""
        alive = torch.tensor([int(save.digesting.is_alive())])
        torch.distributed.all_reduce(alive, group=self.control)
        return not alive.item()

    def commit(self, save: Save) -> None:
        """Waits for the digests, commits, and removes what retention says."""
        save.digesting.join()
        shares = self._gather((save.digests, save.problem))
        problems = [problem for _, problem in shares if problem is not None]
        if problems:
            raise UserError(problems[0])
        digests = {name: entry for share, _ in shares for name, entry in share.items()}
        self.on_first(self._commit, save, digests)
        self.refused.discard(save.state.step)

    def abandon(self, save: Save) -> None:
        """Leaves nothing of a failed save; each rank does so, as none may be able to wait."""
        shutil.rmtree(save.partial, ignore_errors=True)

    def free_bytes(self) -> int:
        """What the disk can still take."""
        return shutil.disk_usage(self.directory).free

    def on_first(self, act: Callable[..., T], *args: Any) -> T:
        """Runs `act(*args)` on rank 0; every rank gets its value.

        Raises:
            UserError: on every rank, where it failed with one or with an OSError.
        """
        answer = _attempt(act, *args) if self.rank == 0 else None
        value, problem = self._broadcast(answer)
        if problem is not None:
            raise UserError(problem)
        return value

    def _make_partial(self, step: int, needed: int) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True)
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

    def _complete(self, save: Save) -> None:
        self.write_sidecars(save.partial)
        told = {"format": save.format.kind, "buckets": save.format.buckets}
        (save.partial / STATE).write_text(json.dumps(asdict(save.state) | told) + "\n")

    def _commit(self, save: Save, digests: verify.Digests) -> None:
        final = verify.step_folder(self.directory, save.state.step)
        if final.exists():  # damaged, or it would not have been saved again
            self._remove(final)
        verify.commit(save.partial, final, digests)
        total = sum(entry["bytes"] for entry in digests.values())
        logger.info("saved %s (%s, %d files)", final, gigabytes(total), len(digests))
        steps = set(verify.committed_steps(self.directory)) - self.refused
        steps.add(save.state.step)
        for step in steps_to_delete(steps, self.config.keep_last, self.config.keep_every):
            self._remove(verify.step_folder(self.directory, step))

    def _discard(self, unwanted: Callable[[TrainState], bool]) -> None:
        for folder in verify.step_folders(self.directory):
            try:
                state = read_state(folder)
            except (OSError, ValueError, TypeError):  # damaged, which `newest_good` names
                continue
            if unwanted(state):
                logger.info("removed %s, which the run has gone back over", folder)
                self._remove(folder)
                self.refused.discard(verify.step_of(folder))

    def _remove(self, folder: Path) -> None:
        """Renames first: a deletion cut off half-way must not look like a checkpoint."""
        doomed = folder.with_name(f"{folder.name}.old{verify.PARTIAL}")
        try:
            folder.rename(doomed)
        except OSError as error:
            logger.warning("%s could not be removed: %s", folder, error)
        shutil.rmtree(doomed, ignore_errors=True)

    def _gather(self, value: Any) -> list[Any]:
        return gather(value, self.control)

    def _broadcast(self, value: Any) -> Any:
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0, group=self.control)
        return values[0]


def read_state(folder: Path) -> TrainState:
    """How far the run of a checkpoint had come; fields that an older version had not are empty."""
    stored = json.loads((folder / STATE).read_text())
    return TrainState(**{name: stored[name] for name in asdict(TrainState()) if name in stored})


def _digest(save: Save, rank: int) -> None:
    """Fills in this rank's digests, or says what went wrong."""
    try:
        names = verify.files_to_digest(save.partial)
        mine = [name for name in names if _writer(name) == rank]
        save.digests.update(verify.digest_files(save.partial, mine))
    except OSError as error:
        save.problem = str(error)


def _writer(name: str) -> int:
    """The rank that wrote a file; 0 for those that belong to no rank."""
    start, _, rest = name.removeprefix("__").partition("_")
    return int(start) if name.startswith("__") and rest and start.isdigit() else 0


def _attempt(act: Callable[..., T], *args: Any) -> tuple[Optional[T], Optional[str]]:
    try:
        return act(*args), None
    except (UserError, OSError) as error:
        return None, str(error)


def problem_on_any_rank(folder: Path, control: torch.distributed.ProcessGroup) -> Optional[str]:
    """What is wrong with a checkpoint; every rank reads its share and hears the same."""
    mine = next(verify.find_problems(folder, control.rank(), control.size()), None)
    return next((p for p in gather(mine, control) if p is not None), None)


def gather(value: Any, group: torch.distributed.ProcessGroup) -> list[Any]:
    """What every rank of the group gives, by rank."""
    values = [None] * group.size()
    torch.distributed.all_gather_object(values, value, group=group)
    return values
