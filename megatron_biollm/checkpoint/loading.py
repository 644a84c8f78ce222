"""From a verified checkpoint into the model and the optimizer of this rank, in any layout."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.optimizer import MegatronOptimizer
from torch.distributed.checkpoint import CheckpointException

from megatron_biollm.checkpoint.content import chunk_names, content_to_load, model_content
from megatron_biollm.checkpoint.formats import read_format
from megatron_biollm.checkpoint.writer import reason
from megatron_biollm.config import UserError
from megatron_biollm.parallel.parallelize import ParallelModel


def load_weights(folder: Path, model: ParallelModel, optional: tuple[str, ...] = ()) -> None:
    """Loads the weights alone from a verified checkpoint into chunks of any layout.

    optional: beginnings of keys; such a weight keeps its value where the checkpoint lacks it.

    Raises:
        UserError: a tensor is absent or has another shape.
    """
    with _holding_what_is_needed(folder):
        content = model_content(model)
        absent = _leave_out_absent(content, folder, optional) if optional else False
        _take_weights(model, dist_checkpointing.load(content, str(folder)), strict=not absent)


def _leave_out_absent(content: dict[str, Any], folder: Path, optional: tuple[str, ...]) -> bool:
    """Takes optional weights that the checkpoint lacks out of what is asked for."""
    stored = dist_checkpointing.load_tensors_metadata(str(folder)).keys()
    absent = [
        (chunk, name)
        for chunk in content.values()
        for name, item in chunk.items()
        if item.key.startswith(optional) and item.key not in stored
    ]
    for chunk, name in absent:
        del chunk[name]
    return bool(absent)


def load_everything(folder: Path, model: ParallelModel, optimizer: MegatronOptimizer) -> None:
    """Loads weights and optimizer state from a verified checkpoint that fits the layout.

    Raises:
        UserError: a tensor is absent or has another shape.
    """
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        if hasattr(part, "_init_optimizer_states_with_dummy_values"):
            part._init_optimizer_states_with_dummy_values()
    with _holding_what_is_needed(folder):
        content = content_to_load(model, optimizer, read_format(folder).kind)
        loaded = dist_checkpointing.load(content, str(folder))
        _take_weights(model, loaded)
        with torch.no_grad():  # core forgets it for fast ones
            optimizer.load_state_dict(loaded["optimizer"])


@contextmanager
def _holding_what_is_needed(folder: Path) -> Iterator[None]:
    """Explains what core says of a checkpoint that lacks a tensor, or has one of another shape."""
    try:
        yield
    except (CheckpointingException, CheckpointException, KeyError, ValueError) as error:
        raise UserError(
            f"{folder} does not hold what this run's model and optimizer need: {reason(error)}. "
            f"Compare its config.yaml with the run's (model.*, training.bf16, "
            f"parallel.use_distributed_optimizer), or take its weights alone with checkpoint.load "
            f"and checkpoint.load_optimizer=false"
        ) from error


def _take_weights(model: ParallelModel, loaded: dict[str, Any], strict: bool = True) -> None:
    for name, chunk in zip(chunk_names(model), model.bare_chunks, strict=True):
        chunk.load_state_dict(loaded[name], strict=strict)
