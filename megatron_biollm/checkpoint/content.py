"""What a rank puts into a checkpoint: weights and optimizer state, described without copies.

Core's `fully_reshardable` optimizer state is gathered over the data-parallel group first, so that
every rank holds the state of its whole model shard, and more in temporaries; a load asks for as
much again. Here each rank describes the part that it owns as boxes of the same tensors: the files
are read by core as if it had written them, nothing is sent, and nothing is copied.
"""

import contextlib
import hashlib
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import (
    ShardedTensor,
    ShardedTensorFactory,
    apply_factories,
    is_main_replica,
)
from megatron.core.optimizer import DistributedOptimizer, MegatronOptimizer, distrib_optimizer

from megatron_biollm.checkpoint.formats import RESHARDABLE
from megatron_biollm.parallel.parallelize import ParallelModel

STATES = ("param", "exp_avg", "exp_avg_sq")

Box = tuple[tuple[int, ...], tuple[int, ...]]


def distributed_parts(optimizer: MegatronOptimizer) -> list[DistributedOptimizer]:
    """Core's optimizers that shard their state over data-parallel ranks; none if it is not so."""
    parts = getattr(optimizer, "chained_optimizers", [optimizer])
    return [part for part in parts if isinstance(part, DistributedOptimizer)]


def model_content(model: ParallelModel) -> dict[str, Any]:
    """The weights of this rank's chunks."""
    return {
        name: chunk.sharded_state_dict(metadata=sharding(RESHARDABLE))
        for name, chunk in zip(chunk_names(model), model.bare_chunks, strict=True)
    }


def chunk_names(model: ParallelModel) -> list[str]:
    """The name of each chunk in a checkpoint."""
    count = len(model.bare_chunks)
    return ["model"] if count == 1 else [f"model{i}" for i in range(count)]


def sharding(kind: str) -> dict[str, Any]:
    """Core's request for a format; a new one each time, since core keeps process groups in it."""
    return {"distrib_optim_sharding_type": kind}


def content_to_load(model: ParallelModel, optimizer: MegatronOptimizer, kind: str) -> dict:
    """What core is to read of a checkpoint of format `kind`; inside `own_state`."""
    content = model_content(model)
    state = optimizer.sharded_state_dict(content, is_loading=True, metadata=sharding(kind))
    return {**content, "optimizer": state}


def content_to_save(model: ParallelModel, optimizer: MegatronOptimizer, kind: str) -> dict:
    """What core is to write: the live tensors themselves, or aliases of their memory."""
    model.bring_up_to_date()
    content = model_content(model)
    with own_state(optimizer):
        state = optimizer.sharded_state_dict(content, is_loading=False, metadata=sharding(kind))
    content = {**content, "optimizer": state}
    apply_factories(content)
    for item in nested_values(content):
        if isinstance(item, ShardedTensor):
            item.data = with_own_storage(item.data)
    return content


def bytes_to_write(content: dict[str, Any]) -> int:
    """What this rank would write of it, were the writing not shared among copies."""
    items = [item for item in nested_values(content) if isinstance(item, ShardedTensor)]
    return sum(item.data.nbytes for item in items if is_main_replica(item.replica_id))


def with_own_storage(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory under a storage that ends where the tensor does.

    Core copies every CPU tensor that is part of a larger storage (a parameter in its buffer, say)
    before it writes, as torch would write the whole storage.
    """
    tensor = tensor.detach()
    whole = tensor.untyped_storage().nbytes() == tensor.nbytes
    if not tensor.is_cpu or whole or tensor.nbytes == 0 or not tensor.is_contiguous():
        return tensor
    memory = torch.from_numpy(tensor.view(-1).view(torch.uint8).numpy())
    return memory.view(tensor.dtype).view(tensor.shape)


def boxes(shape: tuple[int, ...], start: int, stop: int) -> Iterator[Box]:
    """Splits a range of a flattened tensor into boxes, in order: (offsets, sizes) of each.

    Args:
        shape: of the tensor.
        start, stop: of the range, in elements.
    """
    if start >= stop:
        return
    if len(shape) < 2:
        yield (start,) * len(shape), (stop - start,) * len(shape)
        return
    row, inner = math.prod(shape[1:]), shape[1:]
    first, last = -(-start // row), stop // row  # the whole rows
    if first > last:
        yield from _in_row(last, inner, start - last * row, stop - last * row)
        return
    if start < first * row:
        yield from _in_row(first - 1, inner, start - (first - 1) * row, row)
    if first < last:
        yield (first,) + (0,) * len(inner), (last - first, *inner)
    if last * row < stop:
        yield from _in_row(last, inner, 0, stop - last * row)


def _in_row(index: int, shape: tuple[int, ...], start: int, stop: int) -> Iterator[Box]:
    for offsets, sizes in boxes(shape, start, stop):
        yield (index, *offsets), (1, *sizes)


@contextlib.contextmanager
def own_state(optimizer: MegatronOptimizer) -> Iterator[None]:
    """Inside the `with`, core saves and loads reshardable optimizer state where it lies.

    What is loaded is then in its place before core is given it (`optimizer.load_state_dict`).
    """
    with ExitStack() as stack:
        for part in distributed_parts(optimizer):
            own = partial(_own_state, part)
            name = "sharded_param_state_fully_reshardable"
            stack.enter_context(mock.patch.object(part, name, own))
            name = "load_parameter_state_from_fully_reshardable"
            stack.enter_context(mock.patch.object(part, name))
        # Core collects garbage after gathering, for a tenth of a second and more.
        no_gc = SimpleNamespace(collect=lambda: 0)
        stack.enter_context(mock.patch.object(distrib_optimizer, "gc", no_gc))
        yield


def _own_state(
    part: DistributedOptimizer, content: dict, is_loading: bool = False, metadata: Any = None
) -> dict[int, dict[str, list[ShardedTensor]]]:
    """The optimizer state that this rank owns, by parameter and kind, in boxes."""
    described = _by_parameter(content)
    state: dict[int, dict[str, list[ShardedTensor]]] = {}
    for bucket in _buckets(part):
        for parameter, ranges in bucket["param_map"].items():
            own = ranges["param"]
            tensors = part._get_main_param_and_optimizer_states(parameter)
            # What is loaded into a copy in fp32 would be lost.
            assert not is_loading or all(tensors[n].dtype == torch.float32 for n in STATES)
            state[len(state)] = {
                name: _own_boxes(described[parameter], name, tensors[name], own.start)
                for name in STATES
            }
    return state


def _buckets(part: DistributedOptimizer) -> Iterator[dict]:
    for by_dtype in part.gbuf_ranges:
        for buckets in by_dtype.values():
            yield from buckets


def _by_parameter(content: dict) -> dict[torch.Tensor, ShardedTensor | ShardedTensorFactory]:
    kinds = (ShardedTensor, ShardedTensorFactory)
    return {item.data: item for item in nested_values(content) if isinstance(item, kinds)}


def _own_boxes(
    described: ShardedTensor | ShardedTensorFactory, name: str, own: torch.Tensor, start: int
) -> list[ShardedTensor]:
    """The flat range `own`, which starts at `start` of the parameter, as boxes of whole tensors."""
    found, own = [], own.detach().view(-1).float()
    for first, piece in _pieces(described):
        low = max(start, first)
        high = min(start + own.numel(), first + math.prod(piece.local_shape))
        for offsets, sizes in boxes(piece.local_shape, low - first, high - first):
            end = low + math.prod(sizes)
            found.append(_box(piece, name, own[low - start : end - start], offsets, sizes))
            low = end
    return found


def _pieces(described: ShardedTensor | ShardedTensorFactory) -> list[tuple[int, ShardedTensor]]:
    """The tensors that a parameter is stored as, each with its first element in the flat one."""
    if isinstance(described, ShardedTensor):
        return [(0, described)]
    # A tensor without memory tells how the parameter is cut: its parts know where they begin.
    probe = torch.empty(described.data.shape, dtype=torch.float32, device="meta")
    parts = list(nested_values(replace(described, data=probe).build()))
    assert all(part.data.is_contiguous() for part in parts), described.key
    return [(part.data.storage_offset(), part) for part in parts]


def _box(
    piece: ShardedTensor,
    name: str,
    values: torch.Tensor,
    offsets: tuple[int, ...],
    sizes: tuple[int, ...],
) -> ShardedTensor:
    prepended = piece.prepend_axis_num
    sizes = (1,) * prepended + sizes
    offsets = (0,) * prepended + offsets
    return ShardedTensor(
        key=f"optimizer.state.{name}.{piece.key}",
        data=values.view(sizes),
        dtype=values.dtype,
        local_shape=sizes,
        global_shape=piece.global_shape,
        global_offset=tuple(a + b for a, b in zip(piece.global_offset, offsets, strict=True)),
        axis_fragmentations=None,
        # The last one counts data-parallel copies, and this is the only one.
        replica_id=(*piece.replica_id[:-1], 0),
    )


def bucket_layout(model: ParallelModel, optimizer: MegatronOptimizer) -> tuple[str, str, bool]:
    """Where each parameter lies in the optimizer's buckets, on which fast checkpoints depend.

    Returns:
        Which of the model-parallel groups this rank belongs to, a digest that is the same for
        all of its data-parallel ranks, whatever their number, and whether this rank owns a part of
        every bucket.
    """
    described = _by_parameter(model_content(model))
    digest, group, complete = hashlib.sha256(), "", True
    for part in distributed_parts(optimizer):
        group += f"{part.data_parallel_group_idx} "
        complete = complete and all(bucket["param_map"] for bucket in _buckets(part))
        for line in _bucket_lines(part, described):
            digest.update(line.encode())
    return group, digest.hexdigest(), complete


def _bucket_lines(part: DistributedOptimizer, described: dict) -> Iterator[str]:
    for index, buffer in enumerate(part.buffers):
        yield f"{index} {buffer.param_dtype} {buffer.grad_dtype}\n"
        for parameter, (start, stop, bucket) in buffer.param_index_map.items():
            first = buffer.buckets[bucket].offset
            yield f"{bucket} {described[parameter].key} {start - first} {stop - first}\n"
        yield " ".join(str(bucket.numel_unpadded) for bucket in buffer.buckets) + "\n"
