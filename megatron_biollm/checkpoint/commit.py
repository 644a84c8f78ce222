"""From written files to a committed checkpoint, beside training, and what retention then removes.

Rank 0 does it in a thread. The others ask once a step how it went (`is_committed`), so that nobody
waits for the disk, and every rank hears of a failure at the same step.
"""

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Optional

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.config import CheckpointConfig
from megatron_biollm.checkpoint.formats import STATE, Format, read_format
from megatron_biollm.checkpoint.ranks import Ranks, attempt
from megatron_biollm.checkpoint.retention import fast_to_delete, gigabytes, steps_to_delete
from megatron_biollm.checkpoint.writer import RankWriter, Share, reason
from megatron_biollm.config import UserError
from megatron_biollm.log import get_logger
from megatron_biollm.training.state import TrainState

logger = get_logger(__name__)


class SaveFailed(UserError):
    """A save failed, on every rank at once, and nothing of it was kept; training may go on."""


@dataclass
class Save:
    """A save under way.

    Attributes:
        state: how far the run had come.
        format: how it is written.
        partial: where to.
        writer: of this rank's files, once there is one.
        is_collected: every rank has written, and rank 0 completes and commits.
        decided: on rank 0, that it has done so, or could not.
        problem: why it could not.
    """

    state: TrainState
    format: Format
    partial: Path
    writer: Optional[RankWriter] = None
    is_collected: bool = False
    decided: threading.Event = field(default_factory=threading.Event)
    problem: Optional[str] = None


class Committer:
    """Takes saves from their files to the commit, and removes old checkpoints.

    Args:
        directory: `run_dir/checkpoints`.
        config: what to keep.
        ranks: all of the run.
        write_sidecars: writes config, layout, tokenizer and versions into a folder; called on
            rank 0.
        refused: steps whose checkpoints are damaged; they neither count nor go.
    """

    def __init__(
        self,
        directory: Path,
        config: CheckpointConfig,
        ranks: Ranks,
        write_sidecars: Callable[[Path], None],
        refused: set[int],
    ) -> None:
        self.directory, self.config, self.ranks = directory, config, ranks
        self.write_sidecars, self.refused = write_sidecars, refused
        self.sealing: Optional[threading.Thread] = None

    def start_writing(self, save: Save) -> None:
        """Takes the snapshot on every rank and has it written in the background.

        Raises:
            SaveFailed: a rank has no memory for it, or can start no process.
        """
        _, problem = attempt(save.writer.start)
        if self.ranks.any(problem is not None):  # rarely: a number costs less than a message
            _fail_if_any(self.ranks.gather(problem))

    def is_writing(self, save: Save) -> bool:
        """Whether any rank still writes; to be asked by all at once."""
        return self.ranks.any(save.writer.is_running())

    def collect(self, save: Save) -> None:
        """Waits for the writers and has rank 0 complete and commit the save, in a thread.

        Raises:
            SaveFailed: a rank could not write its files.
        """
        share, problem = attempt(save.writer.collect)
        shares = self.ranks.gather_on_first(share or Share(problem=problem))
        _fail_if_any(self.ranks.from_first([share.problem for share in shares or ()]))
        save.is_collected = True
        if self.ranks.is_first:
            self.sealing = threading.Thread(target=self._seal, args=(save, shares))
            self.sealing.start()

    def is_committed(self, save: Save, wait: bool = False) -> bool:
        """Whether rank 0 has committed the save; to be asked by all at once.

        Args:
            save: that is collected.
            wait: until it has.

        Raises:
            SaveFailed: it could not.
        """
        if wait and self.ranks.is_first:
            save.decided.wait()
        decided = save.decided.is_set()
        outcome = self.ranks.number_from_first(decided + (decided and save.problem is not None))
        if outcome == 2:
            raise SaveFailed(self.ranks.from_first(save.problem))
        if outcome == 1:
            self.refused.discard(save.state.step)
            save.writer.close()
        return outcome == 1

    def wait(self) -> None:
        """Waits until rank 0 has removed what retention gave up."""
        if self.sealing is not None:
            self.sealing.join()
            self.sealing = None

    def abandon(self, save: Save) -> None:
        """Leaves nothing of a failed save; each rank does so, as none may be able to wait."""
        self.wait()
        if save.writer is not None:
            save.writer.close()
        shutil.rmtree(save.partial, ignore_errors=True)

    def _seal(self, save: Save, shares: list[Share]) -> None:
        """On rank 0, beside training: everything that is left once all ranks have written."""
        doomed: list[Path] = []
        try:
            save.writer.finish([share.results for share in shares])
            self._complete(save)
            digests = {name: entry for share in shares for name, entry in share.digests.items()}
            rest = [n for n in verify.files_to_digest(save.partial) if n not in digests]
            digests |= verify.digest_files(save.partial, rest)
            doomed = self._commit(save, digests)
        except Exception as error:
            save.problem = reason(error)
        save.decided.set()
        for folder in doomed:
            shutil.rmtree(folder, ignore_errors=True)

    def _complete(self, save: Save) -> None:
        self.write_sidecars(save.partial)
        told = {"format": save.format.kind, "buckets": save.format.buckets}
        (save.partial / STATE).write_text(json.dumps(asdict(save.state) | told) + "\n")

    def _commit(self, save: Save, digests: verify.Digests) -> list[Path]:
        """Commits, and renames what retention gives up; these folders are to be removed."""
        final = verify.step_folder(self.directory, save.state.step)
        verify.seal(save.partial, digests)
        doomed = []
        if final.exists():  # damaged, or a fast one, or it would not have been saved again
            doomed += put_away(final)
        verify.publish(save.partial, final)
        total = sum(entry["bytes"] for entry in digests.values())
        logger.info(
            "saved %s (%s, %s, %d files)", final, save.format.name, gigabytes(total), len(digests)
        )
        for step in self._steps_to_delete():
            doomed += put_away(verify.step_folder(self.directory, step))
        return doomed

    def _steps_to_delete(self) -> list[int]:
        steps = set(verify.committed_steps(self.directory)) - self.refused
        fast = {step for step in steps if self._is_fast(step)}
        reshardable = steps - fast
        config = self.config
        return [
            *steps_to_delete(reshardable, config.keep_last, config.keep_every),
            *fast_to_delete(fast, max(reshardable, default=-1), config.keep_last_fast),
        ]

    def _is_fast(self, step: int) -> bool:
        try:
            return read_format(verify.step_folder(self.directory, step)).is_fast
        except (OSError, ValueError):  # damaged since; what is no good is not worth less than good
            return False


def _fail_if_any(problems: list[Optional[str]]) -> None:
    """Names the first rank that has a problem."""
    for rank, problem in enumerate(problems):
        if problem is not None:
            raise SaveFailed(f"rank {rank}: {problem}")


def put_away(folder: Path) -> list[Path]:
    """Renames first: a deletion cut off half-way must not look like a checkpoint."""
    doomed = folder.with_name(f"{folder.name}.old{verify.PARTIAL}")
    try:
        folder.rename(doomed)
    except OSError as error:
        logger.warning("%s could not be removed: %s", folder, error)
        return []
    return [doomed]
