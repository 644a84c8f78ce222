"""Save, load and reshard training state in megatron-core's `torch_dist` format.

Scheduled checkpoints and those at the end hold the optimizer state as `fully_reshardable`, so that
they load into any TP/PP/VPP/CP/DP layout; fast ones in between as `dp_reshardable`, which is bound
to the layout but for DP (`formats.py`). Nothing draws random numbers during
training (dropout is 0 and the data order follows from `consumed_samples`), so no generator state
is needed for a resume that is exact to the bit.

What is safe when loading a checkpoint from somebody else:
- No code of it runs. Before anything is unpickled, `.metadata`, `common.pt` and every object
  entry are read without running them, and refused if they name what no checkpoint needs
  (`safe_pickle.py`). Tensors are read with `weights_only=True`, the sidecars as JSON and plain
  YAML, the tokenizer from its own files without code.
- Not checked: what the weights do, whether sizes in it exhaust the memory, and files that
  somebody changes between the check and the load. Digests tell damage, not who wrote the files.
  Hugging Face folders with safetensors hold no pickles at all: `tools/convert_checkpoint.py`.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Optional, TypeVar

import torch
from megatron.core.optimizer import MegatronOptimizer
from torch.distributed.checkpoint import CheckpointException

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.commit import Save, SaveFailed
from megatron_biollm.checkpoint.config import CheckpointConfig
from megatron_biollm.checkpoint.content import (
    bucket_layout,
    bytes_to_write,
    content_to_save,
)
from megatron_biollm.checkpoint.formats import (
    STATE,
    Buckets,
    Format,
    buckets_of_world,
    read_format,
    why_unfit,
)
from megatron_biollm.checkpoint.loading import load_everything, load_weights
from megatron_biollm.checkpoint.retention import gigabytes
from megatron_biollm.checkpoint.store import CheckpointStore, read_state
from megatron_biollm.checkpoint.writer import Planner, RankWriter, reason
from megatron_biollm.config import UserError
from megatron_biollm.log import get_logger
from megatron_biollm.parallel.parallelize import ParallelModel
from megatron_biollm.training.state import TrainState

# Sidecars, common values and the padding of files, beside the tensors themselves.
OVERHEAD_BYTES = 1_000_000
T = TypeVar("T")
logger = get_logger(__name__)


class Checkpointer:
    """Saves and restores a run.

    Args:
        directory: `run_dir/checkpoints`.
        config: when to keep what, and how to write.
        model: chunks of this rank.
        optimizer: core's optimizer.
        control: gloo group of all ranks, for messages of the save beside the training streams.
        write_sidecars: writes config, layout, tokenizer and versions into a folder; called on
            rank 0.
        check_sidecars: refuses (UserError) a folder made with another tokenizer or model.
        train_iters: last step of the run, for the forecast of disk use; None makes none.
        new_weights: beginnings of keys of weights that a checkpoint of another run may lack
            (`load_weights`); they begin as they were drawn.
    """

    def __init__(
        self,
        directory: Path,
        config: CheckpointConfig,
        model: ParallelModel,
        optimizer: MegatronOptimizer,
        control: torch.distributed.ProcessGroup,
        write_sidecars: Callable[[Path], None],
        check_sidecars: Callable[[Path], None],
        train_iters: Optional[int] = None,
        new_weights: tuple[str, ...] = (),
    ) -> None:
        self.store = CheckpointStore(directory, config, control, write_sidecars, train_iters)
        self.commits, self.config = self.store.commits, config
        self.model, self.optimizer = model, optimizer
        self.check_sidecars, self.new_weights = check_sidecars, new_weights
        self.planner = Planner(model.groups.dp_cp, config.fully_parallel_save)
        self.sizes: dict[str, int] = {}
        self.saving: Optional[Save] = None
        # Step and format of the checkpoint that is known to be good; others may be damaged.
        self.good: Optional[tuple[int, Format]] = None

    @cached_property
    def buckets(self) -> Buckets:
        """Where the parameters lie, for fast checkpoints; asked for by all ranks at once."""
        mine = bucket_layout(self.model, self.optimizer)
        return buckets_of_world(self.store.ranks.gather(mine))

    @property
    def committed_step(self) -> Optional[int]:
        """Step of the newest checkpoint that this run has committed or gone on from."""
        return None if self.good is None else self.good[0]

    def save(self, state: TrainState, reshardable: bool = True) -> None:
        """Writes the checkpoint of `state`; in the background if the config says so.

        Args:
            state: how far the run has come.
            reshardable: to be loaded in any layout; else in this one, as the optimizer's buckets
                lie on the ranks.

        Raises:
            SaveFailed: the disk cannot hold it or a write failed; nothing half-written stays.
        """
        self.settle()
        wanted = self.buckets.format(reshardable)
        if self.good in ((state.step, wanted), (state.step, Format())):
            return
        content = content_to_save(self.model, self.optimizer, wanted.kind)
        self.saving = self.store.begin(state, wanted, self._bytes(content, wanted.kind))
        with self._nothing_half_written():
            self.saving.writer = self._plan(content)
            self.commits.start_writing(self.saving)
        if not self.config.async_save:
            self._commit()

    def poll(self) -> bool:
        """Moves a background save on; call once a step, on every rank.

        Returns:
            Whether a checkpoint has been committed by it.

        Raises:
            SaveFailed: the save failed; nothing half-written stays.
        """
        save = self.saving
        if save is None:
            return False
        with self._nothing_half_written():
            if save.is_collected:
                return self.commits.is_committed(save) and self._remember(save)
            if not self.commits.is_writing(save):
                self.commits.collect(save)
        return False

    def finish(self) -> None:
        """Waits for a background save and commits it.

        Raises:
            SaveFailed: the save failed; nothing half-written stays.
        """
        self._commit()
        self.commits.wait()

    def _commit(self) -> None:
        """Waits for a background save and commits it; old checkpoints may be gone later only."""
        save = self.saving
        if save is None:
            return
        with self._nothing_half_written():
            if not save.is_collected:
                self.commits.collect(save)
            self.commits.is_committed(save, wait=True)
            self._remember(save)

    def settle(self) -> None:
        """As `finish`, but a failure ends the run only if `on_save_failure` wants it so.

        Raises:
            SaveFailed: the save failed, and the run is to stop.
        """
        try:
            self.finish()
        except SaveFailed as error:
            if self.config.on_save_failure == "stop":
                raise
            logger.error("%s. Going on without it (checkpoint.on_save_failure=continue)", error)

    def _remember(self, save: Save) -> bool:
        self.good, self.saving = (save.state.step, save.format), None
        return True

    def load_newest(self) -> Optional[TrainState]:
        """Restores the newest good checkpoint of the run that this layout can load.

        Bad ones are named and passed over, and so are fast ones of another layout.

        Returns:
            How far the run had come, or None if it has no checkpoint.

        Raises:
            UserError: it has checkpoints and none can be used, or they are of another model.
        """
        self.store.remove_unfinished()
        return self.store.newest_usable(self.store.directory, self._fits, self._go_on_from)

    def newest_good_before(self, step: int) -> Optional[TrainState]:
        """State of the newest good checkpoint of `step` or older that this layout can load.

        Raises:
            SaveFailed: the save that was under way failed, and the run is to stop.
        """
        self.settle()
        return self.store.newest_good_before(step, self._fits)

    def load_from(self, path: Path, with_optimizer: bool) -> TrainState:
        """Starts from another run: one of its checkpoints, its `checkpoints` folder, or its
        `run_dir`.

        Args:
            path: folder of one step, or of many, whose newest good one is taken.
            with_optimizer: restore optimizer state and progress too.

        Raises:
            UserError: no good checkpoint there, or one of another model.
        """
        return self._use(
            path, with_optimizer, partial(self._restore, with_optimizer=with_optimizer)
        )

    def find(self, path: Path, with_optimizer: bool) -> Path:
        """The folder that `load_from` would take.

        Raises:
            UserError: no good checkpoint there.
        """
        return self._use(path, with_optimizer, self.store.check)

    def _use(self, path: Path, with_optimizer: bool, use: Callable[[Path], T]) -> T:
        """As `newest_usable`, of the checkpoints that are meant by `path`."""
        fits = self._fits if with_optimizer else lambda folder: True
        for directory in (path, path / "checkpoints"):
            if (used := self.store.newest_usable(directory, fits, use)) is not None:
                return used
        if not self.store.ranks.on_first(verify.is_checkpoint, path):
            raise UserError(
                f"{path} holds no checkpoint; give a run, its checkpoints, or one step_XXXXXXXX"
            )
        self.store.check(path, values=False)
        if not fits(path):
            raise UserError(why_unfit(path))
        return use(path)

    def take_weights(self, folder: Path) -> None:
        """Loads the weights alone from a folder that `find` gave.

        Raises:
            UserError: it is of another model or tokenizer.
        """
        self._restore(folder, with_optimizer=False, verified=True)

    def _fits(self, folder: Path) -> bool:
        """Whether this layout can load a good checkpoint; to be asked by all ranks."""
        stored = self.store.ranks.on_first(read_format, folder)
        return not stored.is_fast or self.buckets.fit(stored)

    def _go_on_from(self, folder: Path) -> TrainState:
        state = self._restore(folder, with_optimizer=True)
        self.good = (state.step, read_format(folder))
        return state

    def _restore(self, folder: Path, with_optimizer: bool, verified: bool = False) -> TrainState:
        self.check_sidecars(folder)
        stored = json.loads((folder / STATE).read_text())
        if not with_optimizer or stored.get("weights_only", False):
            verifying = None if verified else self.store.ranks.control
            load_weights(folder, self.model, self.new_weights, verifying)
            self.optimizer.reload_model_params()
            logger.info("took the weights alone from %s", folder)
            return TrainState()
        load_everything(folder, self.model, self.optimizer, self.store.ranks.control)
        logger.info("restored %s", folder)
        return read_state(folder)

    def _bytes(self, content: dict[str, Any], kind: str) -> int:
        """Of a checkpoint of this kind, which are the same for every step."""
        if kind not in self.sizes:
            self.sizes[kind] = self.store.ranks.sum(bytes_to_write(content)) + OVERHEAD_BYTES
        return self.sizes[kind]

    def _plan(self, content: dict[str, Any]) -> RankWriter:
        return self.planner.plan(content, self.saving.partial, self.saving.format.kind)

    @contextmanager
    def _nothing_half_written(self) -> Iterator[None]:
        """A failure inside (a disk that filled up, say) removes the save and is explained."""
        save = self.saving
        try:
            yield
        except (Exception, CheckpointException) as error:  # torch's is no Exception
            self.saving = None
            self.commits.abandon(save)
            # A rank that has lost its peers crashes like them (a RuntimeError of the collective):
            # there is nothing for a user to mend, and the run is to be started again.
            if not isinstance(error, UserError | OSError | CheckpointException):
                raise
            # What one rank alone has met is not for the others to go on from.
            kind = SaveFailed if isinstance(error, SaveFailed) else UserError
            raise kind(
                f"the checkpoint of step {save.state.step} could not be written to "
                f"{self.store.directory} (now {gigabytes(self.store.free_bytes())} free): "
                f"{reason(error)}. Nothing of it was kept, and earlier checkpoints are "
                f"untouched; free disk space or move run_dir, then start the run again"
            ) from error
