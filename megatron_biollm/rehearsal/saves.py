"""What one rank holds and would put into a checkpoint, in both formats, without running a step."""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from megatron.core.tensor_parallel import layers

from megatron_biollm.checkpoint import content
from megatron_biollm.checkpoint.formats import FAST, RESHARDABLE
from megatron_biollm.parallel import parallelize
from megatron_biollm.parallel.parallelize import ParallelModel
from megatron_biollm.parallel.process_groups import create_process_groups
from megatron_biollm.rehearsal.checkpoint_plan import Shard, shards_of
from megatron_biollm.rehearsal.fake_world import fake_world
from megatron_biollm.rehearsal.rank import RehearsedRun, build, kernels

FORMATS = {"reshardable": RESHARDABLE, "fast": FAST}


@dataclass(frozen=True)
class RankContent:
    """Attributes:
    shapes: digest of its parameters' names, shapes and types, and of its gradient buffers.
    shards: of its checkpoint by format; `fast` is left out where the run has no such saves.
    """

    shapes: str
    shards: dict[str, list[Shard]]


def rank_content(run: RehearsedRun, rank: int) -> RankContent:
    """Builds one rank as the run does, but for the weights' values, and describes it."""
    with kernels(run.on_gpu), fake_world(rank, run.world_size, record=False), _quick():
        model, trainer = build(run, create_process_groups(run.parallel))
        parts = content.distributed_parts(trainer.optimizer)
        for part in parts:
            part._init_optimizer_states_with_dummy_values()
        shards = {
            name: shards_of(content.content_to_save(model, trainer.optimizer, kind))
            for name, kind in FORMATS.items()
            if kind == RESHARDABLE or parts
        }
        return RankContent(_shapes(model), shards)


def _shapes(model: ParallelModel) -> str:
    digest = hashlib.sha256()
    for chunk in model.chunks:
        for name, parameter in chunk.named_parameters():
            digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}\n".encode())
        for buffer in chunk.buffers:
            digest.update(f"{buffer.grad_data.numel()} {buffer.grad_dtype}\n".encode())
    return digest.hexdigest()


@contextlib.contextmanager
def _quick() -> Iterator[None]:
    """Draws no weights, since only shapes are asked for, and leaves memory as it is."""
    with contextlib.ExitStack() as stack:
        for target, name, value in (
            (parallelize, "initialize_weights", lambda *args: None),
            (layers, "_initialize_affine_weight_gpu", _mark),
            (content, "with_own_storage", lambda tensor: tensor),
        ):
            stack.enter_context(mock.patch.object(target, name, value))
        yield


def _mark(
    weight: torch.Tensor, init_method: Any, partition_dim: int, stride: int = 1, **kwargs: Any
) -> None:
    layers.set_tensor_model_parallel_attributes(
        tensor=weight, is_parallel=True, dim=partition_dim, stride=stride
    )
