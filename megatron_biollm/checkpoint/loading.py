"""From a checkpoint into the model and the optimizer of this rank, in any layout."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.optimizer import MegatronOptimizer
from torch.distributed.checkpoint import CheckpointException

from megatron_biollm.checkpoint.adapters import describe, read_adapter, stored_lora, weight_key
from megatron_biollm.checkpoint.content import (
    chunk_names,
    content_to_load,
    model_content,
    own_state,
)
from megatron_biollm.checkpoint.formats import read_format
from megatron_biollm.checkpoint.reading import straight_into_tensors
from megatron_biollm.checkpoint.stream import CheckpointReader
from megatron_biollm.checkpoint.verify import BadCheckpoint
from megatron_biollm.checkpoint.writer import reason
from megatron_biollm.config import UserError
from megatron_biollm.model.lora import merge_adapters
from megatron_biollm.model.lora_config import LoraConfig, is_adapter
from megatron_biollm.parallel.parallelize import ParallelModel
from megatron_biollm.training.optimizer import GroupStepAdamW


def load_weights(
    folder: Path,
    model: ParallelModel,
    optional: tuple[str, ...] = (),
    verifying: Optional[torch.distributed.ProcessGroup] = None,
) -> None:
    """Loads the weights alone from a checkpoint into chunks of any layout.

    Adapters in it are merged into the weights that they belong to. Those of the model itself keep
    their values: they begin anew, on top of what was loaded.

    Args:
        folder: of one step.
        model: to load into.
        optional: beginnings of keys; such a weight keeps its value where the checkpoint lacks it.
        verifying: all ranks, which verify the files of tensors as they read them; None: these are
            known to be good.

    Raises:
        BadCheckpoint: on every rank, if a file turns out to be changed; the weights are worthless.
        UserError: a tensor is absent or has another shape.
    """
    stored = _keys(folder)
    lora = stored_lora(folder, stored)
    unverified = None if verifying is None else folder
    with _holding_what_is_needed(folder), straight_into_tensors(unverified, verifying):
        content = model_content(model)
        lacking = _leave_out(
            content,
            lambda key: is_adapter(key) or (key.startswith(optional) and key not in stored),
        )
        _take_weights(model, dist_checkpointing.load(content, str(folder)), strict=not lacking)
    if lora is not None:
        _merge(folder, lora, model)


def _keys(folder: Path) -> set[str]:
    with _holding_what_is_needed(folder):
        return set(dist_checkpointing.load_tensors_metadata(str(folder)))


def _merge(folder: Path, lora: LoraConfig, model: ParallelModel) -> None:
    reader = CheckpointReader(folder)
    for chunk in model.bare_chunks:
        merge_adapters(
            getattr(chunk, "module", chunk),  # what holds a bf16 model casts its inputs
            lora,
            lambda path, layer: read_adapter(reader, weight_key(path), layer),
            model.groups,
        )


def _leave_out(content: dict[str, Any], unwanted: Callable[[str], bool]) -> bool:
    """Takes weights, by their keys, out of what is asked for; says whether there were any."""
    found = [
        (chunk, name)
        for chunk in content.values()
        for name, item in chunk.items()
        if unwanted(item.key)
    ]
    for chunk, name in found:
        del chunk[name]
    return bool(found)


def load_everything(
    folder: Path,
    model: ParallelModel,
    optimizer: MegatronOptimizer,
    verifying: torch.distributed.ProcessGroup,
) -> None:
    """Loads weights and optimizer state from a checkpoint that fits the layout.

    Args:
        folder: of one step.
        model, optimizer: to load into.
        verifying: all ranks, which verify the files of tensors as they read them.

    Raises:
        BadCheckpoint: on every rank, if one of them turns out to be changed; what has been loaded
            is worthless.
        UserError: a tensor is absent or has another shape, or adapters are not the model's.
    """
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        _create_states(part)
    _check_same_adapters(folder, model)
    with _holding_what_is_needed(folder), own_state(optimizer):
        content = content_to_load(model, optimizer, read_format(folder).kind)
        with straight_into_tensors(folder, verifying):
            loaded = dist_checkpointing.load(content, str(folder))
        _take_weights(model, loaded)
        with torch.no_grad():  # core forgets it for fast ones
            optimizer.load_state_dict(loaded["optimizer"])


def _create_states(optimizer: MegatronOptimizer) -> None:
    """What the distributed optimizer loads into; the plain one makes its own."""
    if not hasattr(optimizer, "_init_optimizer_states_with_dummy_values"):
        return
    if isinstance(optimizer.optimizer, GroupStepAdamW):
        optimizer.optimizer.create_states()
    else:  # core makes a step upon gradients of zero
        optimizer._init_optimizer_states_with_dummy_values()


def _check_same_adapters(folder: Path, model: ParallelModel) -> None:
    stored = stored_lora(folder, _keys(folder))
    if stored != model.lora:
        raise UserError(
            f"{folder} was trained with {describe(stored)}, and this run with "
            f"{describe(model.lora)}; go on with finetune.lora as it was, or give another run_dir "
            f"and checkpoint.load={folder} with checkpoint.load_optimizer=false, which merges "
            f"adapters into the weights"
        )


@contextmanager
def _holding_what_is_needed(folder: Path) -> Iterator[None]:
    """Explains what core says of a checkpoint that lacks a tensor, or has one of another shape."""
    try:
        yield
    except BadCheckpoint:
        raise
    except (CheckpointingException, CheckpointException, KeyError, ValueError) as error:
        for damage, _ in getattr(error, "failures", {}).values():  # of each rank that failed
            if isinstance(damage, BadCheckpoint):
                raise BadCheckpoint(str(damage)) from error
        raise UserError(
            f"{folder} does not hold what this run's model and optimizer need: {reason(error)}. "
            f"Compare its config.yaml with the run's (model.*, training.bf16, "
            f"parallel.use_distributed_optimizer), or take its weights alone with checkpoint.load "
            f"and checkpoint.load_optimizer=false"
        ) from error


def _take_weights(model: ParallelModel, loaded: dict[str, Any], strict: bool = True) -> None:
    for name, chunk in zip(chunk_names(model), model.bare_chunks, strict=True):
        chunk.load_state_dict(loaded[name], strict=strict)
