"""Save, load and reshard training state in megatron-core's `torch_dist` format.

Optimizer state is saved as `fully_reshardable`, so that a checkpoint loads into any
TP/PP/VPP/CP/DP layout (core's default changes DP only). Nothing draws random numbers during
training (dropout is 0 and the data order follows from `consumed_samples`), so no generator state
is needed for a resume that is exact to the bit.
"""

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Optional

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.mapping import ShardedTensor, is_main_replica
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.serialization import get_default_save_sharded_strategy
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncCallsQueue
from megatron.core.dist_checkpointing.strategies.fully_parallel import (
    FullyParallelSaveStrategyWrapper,
)
from megatron.core.optimizer import MegatronOptimizer

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.config import CheckpointConfig
from megatron_biollm.checkpoint.retention import check_disk_space, gigabytes, steps_to_delete
from megatron_biollm.config import UserError
from megatron_biollm.log import get_logger
from megatron_biollm.parallel.parallelize import ParallelModel
from megatron_biollm.training.state import TrainState

SHARDING = {"distrib_optim_sharding_type": "fully_reshardable"}
STATE = "state.json"
logger = get_logger(__name__)


@dataclass
class _Save:
    """A save under way: where it goes, and who still digests."""

    state: TrainState
    partial: Path
    digesting: Optional[threading.Thread] = None
    digests: dict[str, dict[str, object]] = field(default_factory=dict)


class Checkpointer:
    """Saves and restores a run.

    Args:
        directory: `run_dir/checkpoints`.
        config: when to keep what, and how to write.
        model: chunks of this rank.
        optimizer: core's optimizer.
        control: gloo group of all ranks, for messages of the save beside the training streams.
        write_sidecars: writes config, layout, tokenizer and versions into a folder; rank 0 calls it.
        check_sidecars: refuses (UserError) a folder made with another tokenizer or model.
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
    ) -> None:
        self.directory, self.config = directory, config
        self.model, self.optimizer = model, optimizer
        self.control = control
        self.write_sidecars, self.check_sidecars = write_sidecars, check_sidecars
        self.queue = AsyncCallsQueue(persistent=False)
        self.saving: Optional[_Save] = None
        self.is_first = torch.distributed.get_rank() == 0

    def save(self, state: TrainState) -> None:
        """Writes the checkpoint of `state`; in the background if the config says so.

        Raises:
            UserError: the disk cannot hold it; nothing half-written stays.
        """
        self.finish()
        if state.step in verify.committed_steps(self.directory):
            return
        content = self._content(is_loading=False)
        folder = self._prepare(state.step, _global_bytes(content, self.control))
        self.saving = _Save(TrainState(**asdict(state)), folder)
        request = dist_checkpointing.save(
            content, str(folder), sharded_strategy=self._strategy(), async_sharded_save=True
        )
        if self.config.async_save:
            self.queue.schedule_async_request(request)
            return
        self._write(request.execute_sync)
        self._digest()
        self.finish()

    def poll(self) -> None:
        """Moves a background save on; call once a step, on every rank."""
        if self.saving is None:
            return
        if self.saving.digesting is None:
            if self._write(self.queue.maybe_finalize_async_calls):
                self._digest()
            return
        alive = torch.tensor([int(self.saving.digesting.is_alive())])
        torch.distributed.all_reduce(alive, group=self.control)
        if not alive.item():
            self._commit()

    def finish(self) -> None:
        """Waits for a background save and commits it."""
        if self.saving is None:
            return
        if self.saving.digesting is None:
            self._write(partial(self.queue.maybe_finalize_async_calls, blocking=True))
            self._digest()
        self.saving.digesting.join()
        self._commit()

    def load_newest(self) -> Optional[TrainState]:
        """Restores the newest good checkpoint of the run; bad ones are named and passed over.

        Returns:
            How far the run had come, or None if it has no good checkpoint.
        """
        folder = self._newest_good(self.directory)
        return None if folder is None else self._restore(folder, with_optimizer=True)

    def load_from(self, path: Path, with_optimizer: bool) -> TrainState:
        """Starts from another run: one of its checkpoints, or its `checkpoints` folder.

        Args:
            path: folder of one step, or a folder of steps, whose newest good one is taken.
            with_optimizer: restore optimizer state and progress too.

        Raises:
            UserError: no good checkpoint there.
        """
        folder = path
        if verify.committed_steps(path):
            folder = self._newest_good(path)
        elif (problem := self._problem(path)) is not None:
            raise UserError(problem)
        if folder is None:
            raise UserError(f"{path} holds no good checkpoint; see the refusals above")
        return self._restore(folder, with_optimizer)

    def _newest_good(self, directory: Path) -> Optional[Path]:
        for step in reversed(verify.committed_steps(directory)):
            folder = verify.step_folder(directory, step)
            problem = self._problem(folder)
            if problem is None:
                return folder
            logger.warning("refused: %s", problem)
        return None

    def _restore(self, folder: Path, with_optimizer: bool) -> TrainState:
        self.check_sidecars(folder)
        stored = json.loads((folder / STATE).read_text())
        if not with_optimizer or stored.get("weights_only", False):
            load_weights(folder, self.model)
            self.optimizer.reload_model_params()
            return TrainState()
        for part in getattr(self.optimizer, "chained_optimizers", [self.optimizer]):
            if hasattr(part, "_init_optimizer_states_with_dummy_values"):
                part._init_optimizer_states_with_dummy_values()
        loaded = dist_checkpointing.load(self._content(is_loading=True), str(folder))
        _take_weights(self.model, loaded)
        logger.info("restored %s", folder)
        self.optimizer.load_state_dict(loaded["optimizer"])
        return TrainState(**{name: stored[name] for name in asdict(TrainState())})

    def _content(self, is_loading: bool) -> dict[str, Any]:
        model = _model_content(self.model)
        optimizer = self.optimizer.sharded_state_dict(
            model, is_loading=is_loading, metadata=SHARDING
        )
        return {**model, "optimizer": optimizer}

    def _strategy(self) -> Any:
        strategy = get_default_save_sharded_strategy()
        group = self.model.groups.dp_cp
        if self.config.fully_parallel_save and group.size() > 1:
            return FullyParallelSaveStrategyWrapper(strategy, group)
        return strategy

    def _prepare(self, step: int, needed: int) -> Path:
        folder = verify.step_folder(self.directory, step).with_suffix(verify.PARTIAL)
        problem = None
        if self.is_first:
            self.directory.mkdir(parents=True, exist_ok=True)
            for stale in self.directory.glob(f"*{verify.PARTIAL}"):
                shutil.rmtree(stale)
            problem = _user_error(check_disk_space, self.directory, needed)
            if problem is None:
                folder.mkdir()
        self._raise_together(problem)
        return folder

    def _write(self, write: Callable[[], Any]) -> Any:
        """Runs `write`; a failure (a disk that filled up, say) leaves nothing half-written."""
        try:
            return write()
        except Exception as error:
            shutil.rmtree(self.saving.partial, ignore_errors=True)
            raise UserError(
                f"saving {self.saving.partial} failed: {error}; free disk space or move run_dir. "
                f"The last committed checkpoint is untouched"
            ) from error

    def _digest(self) -> None:
        """Digests this rank's share of the files, in a thread: the step loop goes on."""
        save = self.saving
        if self.is_first:
            self.write_sidecars(save.partial)
            (save.partial / STATE).write_text(json.dumps(asdict(save.state)) + "\n")
        torch.distributed.barrier(group=self.control)
        rank, size = self.control.rank(), self.control.size()
        mine = verify.files_to_digest(save.partial)[rank::size]
        save.digesting = threading.Thread(
            target=lambda: save.digests.update(verify.digest_files(save.partial, mine))
        )
        save.digesting.start()

    def _commit(self) -> None:
        save, self.saving = self.saving, None
        shares = _gather(save.digests, self.control)
        if self.is_first:
            final = verify.step_folder(self.directory, save.state.step)
            if final.exists():  # damaged, or it would not have been saved again
                shutil.rmtree(final)
            digests = {name: entry for share in shares for name, entry in share.items()}
            verify.commit(save.partial, final, digests)
            total = sum(entry["bytes"] for entry in digests.values())
            logger.info("saved %s (%s, %d files)", final, gigabytes(total), len(digests))
            self._retain()
        torch.distributed.barrier(group=self.control)

    def _retain(self) -> None:
        steps = verify.committed_steps(self.directory)
        for step in steps_to_delete(steps, self.config.keep_last, self.config.keep_every):
            shutil.rmtree(verify.step_folder(self.directory, step))

    def _problem(self, folder: Path) -> Optional[str]:
        """What is wrong with a checkpoint; every rank reads its share and hears the same."""
        rank, size = self.control.rank(), self.control.size()
        mine = _user_error(verify.verify_checkpoint, folder, rank, size)
        return next((p for p in _gather(mine, self.control) if p is not None), None)

    def _raise_together(self, problem: Optional[str]) -> None:
        found = next((p for p in _gather(problem, self.control) if p is not None), None)
        if found is not None:
            raise UserError(found)


def load_weights(folder: Path, model: ParallelModel) -> None:
    """Loads the weights alone from a committed checkpoint into chunks of any layout.

    Raises:
        UserError: a tensor is absent or has another shape.
    """
    content = _model_content(model)
    try:
        loaded = dist_checkpointing.load(content, str(folder))
    except (dist_checkpointing.core.CheckpointingException, KeyError) as error:
        raise UserError(
            f"{folder} does not hold this model's weights: {error}; compare model.* in "
            f"{folder / 'config.yaml'} with the run's"
        ) from error
    _take_weights(model, loaded)


def _model_content(model: ParallelModel) -> dict[str, Any]:
    chunks = model.bare_chunks
    names = ["model"] if len(chunks) == 1 else [f"model{i}" for i in range(len(chunks))]
    return {
        name: chunk.sharded_state_dict(metadata=SHARDING)
        for name, chunk in zip(names, chunks, strict=True)
    }


def _take_weights(model: ParallelModel, loaded: dict[str, Any]) -> None:
    chunks = model.bare_chunks
    for index, chunk in enumerate(chunks):
        chunk.load_state_dict(loaded["model" if len(chunks) == 1 else f"model{index}"])


def _global_bytes(content: dict[str, Any], group: torch.distributed.ProcessGroup) -> int:
    """Bytes that all ranks together will write."""
    mine = 0
    for item in nested_values(content):
        if isinstance(item, ShardedTensor) or hasattr(item, "replica_id"):
            data = getattr(item, "data", None)
            if torch.is_tensor(data) and is_main_replica(item.replica_id):
                mine += data.nbytes
    total = torch.tensor([mine])
    torch.distributed.all_reduce(total, group=group)
    return int(total.item())


def _gather(value: Any, group: torch.distributed.ProcessGroup) -> list[Any]:
    values = [None] * group.size()
    torch.distributed.all_gather_object(values, value, group=group)
    return values


def _user_error(check: Callable, *args: Any) -> Optional[str]:
    try:
        check(*args)
    except UserError as error:
        return str(error)
    return None
