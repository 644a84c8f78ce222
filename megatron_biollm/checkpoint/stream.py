"""A checkpoint's tensors one piece at a time, in one process without a GPU.

Reads megatron-core's torch_dist folders whatever layout saved them, and writes folders that core
loads in any layout. Both use torch's distributed checkpoint (DCP) directly: core's own save and
load hold a rank's whole state in memory, and so need as many ranks as the model is large.

On disk (measured on megatron-core 0.16.1 and 0.19.2): the tensors of all layers are stacked along
a first axis under one key without a layer number, ``decoder.layers.mlp.linear_fc2.weight`` of
shape [num_layers, hidden_size, ffn_hidden_size]; a key may be cut into any grid of chunks.
"""

import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.distributed.checkpoint import DefaultSavePlanner, FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from megatron_biollm.checkpoint.safe_pickle import check_checkpoint_pickles
from megatron_biollm.config import UserError

# 0.16.1 also writes its `common_backend` here, but defaults to the same; 0.19.2 rejects the field.
CORE_METADATA = {"sharded_backend": "torch_dist", "sharded_backend_version": 1}


@dataclass(frozen=True)
class TensorInfo:
    """A checkpoint tensor: its global shape, its dtype, and the bytes of its largest chunk."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    largest_chunk: int


class CheckpointReader:
    """Tensors of a torch_dist folder; `tensors` maps each key to its TensorInfo.

    Every pickle in the folder is checked first. A read holds the piece and one chunk at a time.

    Raises:
        UserError: no torch_dist checkpoint, an unsafe or damaged one.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        check_checkpoint_pickles(self.folder)
        self._reader = FileSystemReader(self.folder)
        self._metadata = self._reader.read_metadata()
        self._reader.set_up_storage_reader(self._metadata, is_coordinator=True)
        entries = self._metadata.state_dict_metadata.items()
        self.tensors = {
            key: _info(entry) for key, entry in entries if isinstance(entry, TensorStorageMetadata)
        }

    def read(
        self, key: str, layer: int | None = None, rows: tuple[int, int] | None = None
    ) -> torch.Tensor:
        """A tensor, or one layer of it, or a range of rows (first, after the last) of that.

        The `*` in `key` stands for the layer number (from 0). Both forms of core are read: all
        layers stacked under one key, and one key per layer (`non_homogeneous_layers`).

        Raises:
            UserError: no such tensor or layer, or a missing or damaged file.
        """
        stacked = key.replace(".*", "")
        is_stacked = layer is not None and stacked in self.tensors
        name = stacked if is_stacked or layer is None else key.replace("*", str(layer))
        shape = list(self._info(name).shape)
        offsets = [0] * len(shape)
        axis = 0
        if is_stacked:
            if layer >= shape[0]:
                raise UserError(f"{self.folder} has {shape[0]} layers of {name}, not {layer + 1}")
            offsets[0], shape[0], axis = layer, 1, 1
        if rows is not None:
            if rows[1] > shape[axis]:
                raise UserError(f"{name} in {self.folder} has {shape[axis]} rows, not {rows[1]}")
            offsets[axis], shape[axis] = rows[0], rows[1] - rows[0]
        box = self._read_box(name, offsets, shape)
        return box[0] if is_stacked else box

    def _info(self, key: str) -> TensorInfo:
        if key not in self.tensors:
            raise UserError(
                f"{self.folder} has no tensor {key}; it holds {len(self.tensors)} others, "
                f"so it was not written by this program's model"
            )
        return self.tensors[key]

    def _read_box(self, key: str, offsets: Sequence[int], sizes: Sequence[int]) -> torch.Tensor:
        target = torch.empty(sizes, dtype=self._info(key).dtype)
        box = ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))
        entry = self._metadata.state_dict_metadata[key]
        items = create_read_items_for_chunk_list(key, entry, [box])
        if sum(math.prod(item.lengths) for item in items) != target.numel():
            raise UserError(f"{key} in {self.folder} has gaps; the checkpoint is incomplete")
        try:
            self._reader.read_data(LoadPlan(items), _IntoTensor(target)).wait()
        except Exception as error:  # torch raises many kinds on damaged files
            raise UserError(
                f"{key} in {self.folder} cannot be read ({str(error).splitlines()[0]}); "
                f"the file is missing or damaged, use another checkpoint"
            ) from error
        return target


@dataclass(frozen=True)
class Piece:
    """A box of a checkpoint tensor, made by `produce` when its turn to be written comes.

    key: core's key. global_shape: of the whole tensor. offsets, sizes: where the box lies in it.
    produce: returns the box's values, in any shape of the same number of elements.
    """

    key: str
    global_shape: tuple[int, ...]
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    dtype: torch.dtype
    produce: Callable[[], torch.Tensor]

    @property
    def nbytes(self) -> int:
        return math.prod(self.sizes) * self.dtype.itemsize


def write_weights(
    folder: Path | str,
    pieces: Sequence[Piece],
    empty_objects: Sequence[str] = (),
    on_written: Callable[[Piece], None] = lambda piece: None,
) -> None:
    """Writes a torch_dist folder with weights alone; two pieces at most are in memory.

    empty_objects: keys of objects without content that core asks for (`_extra_state`).
    on_written: called as each piece is handed over, for progress.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # One plan makes one file, as if each were another rank. torch keeps the last tensor of every
    # key of a file alive, so a file must not hold more than the largest piece.
    plans = [SavePlan([_write_item(p) for p in group]) for group in _groups(pieces)]
    plans.insert(0, SavePlan([_object_item(key) for key in empty_objects]))
    # 0 bytes ahead: on a machine with a GPU torch would reorder and collect tensors otherwise.
    writer = FileSystemWriter(folder, per_thread_copy_ahead=0)
    writer.set_up_storage_writer(is_coordinator=True)
    planner = _OnDemand(pieces, on_written)
    plans = writer.prepare_global_plan(plans)
    results = [writer.write_data(plan, planner).wait() for plan in plans if plan.items]
    writer.finish(_metadata(pieces, empty_objects), results)
    torch.save({}, folder / "common.pt")
    (folder / "metadata.json").write_text(json.dumps(CORE_METADATA))


class _IntoTensor(LoadPlanner):
    """Lets torch read into one given tensor."""

    def __init__(self, target: torch.Tensor):
        self.target = target

    def resolve_tensor(self, read_item: ReadItem) -> torch.Tensor:
        box = self.target
        boxes = zip(read_item.dest_offsets, read_item.lengths, strict=True)
        for axis, (start, length) in enumerate(boxes):
            box = box.narrow(axis, start, length)
        return box

    def commit_tensor(self, read_item: ReadItem, tensor: torch.Tensor) -> None:
        pass

    def set_up_planner(self, *args, **kwargs) -> None:
        raise NotImplementedError

    create_local_plan = create_global_plan = finish_plan = load_bytes = set_up_planner


class _OnDemand(DefaultSavePlanner):
    """Makes the values of a write item when torch asks for them."""

    def __init__(self, pieces: Iterable[Piece], on_written: Callable[[Piece], None]):
        super().__init__()
        self.pieces = {(piece.key, tuple(piece.offsets)): piece for piece in pieces}
        self.on_written = on_written

    def resolve_data(self, write_item: WriteItem) -> torch.Tensor | io.BytesIO:
        if write_item.type == WriteItemType.BYTE_IO:
            blob = io.BytesIO()
            torch.save([None], blob)
            return blob
        piece = self.pieces[(write_item.index.fqn, tuple(write_item.index.offset))]
        values = piece.produce().to(piece.dtype).reshape(piece.sizes).contiguous()
        self.on_written(piece)
        return values


def _info(entry: TensorStorageMetadata) -> TensorInfo:
    dtype = entry.properties.dtype
    chunks = [math.prod(chunk.sizes) * dtype.itemsize for chunk in entry.chunks]
    return TensorInfo(tuple(entry.size), dtype, max(chunks, default=0))


def _groups(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Consecutive pieces, no group larger than the largest piece."""
    limit = max(piece.nbytes for piece in pieces)
    group, size = [], 0
    for piece in pieces:
        if group and size + piece.nbytes > limit:
            yield group
            group, size = [], 0
        group.append(piece)
        size += piece.nbytes
    yield group


def _write_item(piece: Piece) -> WriteItem:
    offsets, sizes = torch.Size(piece.offsets), torch.Size(piece.sizes)
    return WriteItem(
        index=MetadataIndex(piece.key, offsets),
        type=WriteItemType.SHARD,
        tensor_data=TensorWriteData(
            chunk=ChunkStorageMetadata(offsets, sizes),
            properties=TensorProperties(dtype=piece.dtype),
            size=torch.Size(piece.global_shape),
        ),
    )


def _object_item(key: str) -> WriteItem:
    return WriteItem(index=MetadataIndex(key), type=WriteItemType.BYTE_IO)


def _metadata(pieces: Sequence[Piece], empty_objects: Sequence[str]) -> Metadata:
    entries: dict = {key: BytesStorageMetadata() for key in empty_objects}
    for piece in pieces:
        item = _write_item(piece).tensor_data
        entry = entries.setdefault(piece.key, TensorStorageMetadata(item.properties, item.size, []))
        entry.chunks.append(item.chunk)
    return Metadata(entries)
