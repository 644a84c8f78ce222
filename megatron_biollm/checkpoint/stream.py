"""A checkpoint's tensors a few rows at a time, in one process without a GPU.

Reads megatron-core's torch_dist folders whatever layout saved them, through torch's distributed
checkpoint (DCP) directly: core's own load holds a rank's whole state in memory, and so needs as
many ranks as the model is large. `stream_writer.py` is the other direction.

On disk (measured on megatron-core 0.16.1 and 0.19.2): the tensors of all layers are stacked along
a first axis under one key without a layer number, ``decoder.layers.mlp.linear_fc2.weight`` of
shape [num_layers, hidden_size, ffn_hidden_size]; a key may be cut into any grid of chunks.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    LoadPlanner,
    ReadItem,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from megatron_biollm.checkpoint.payload import Extent, Payload, find_payload, read_exactly
from megatron_biollm.checkpoint.safe_pickle import check_checkpoint_pickles
from megatron_biollm.config import UserError


@dataclass(frozen=True)
class TensorInfo:
    """A checkpoint tensor: its global shape and its dtype."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class CheckpointReader:
    """Tensors of a torch_dist folder; `tensors` maps each key to its TensorInfo.

    Every pickle in the folder is checked first. Rows of matrices are read alone, from wherever the
    ranks left them, into memory of the caller; files are never mapped, as their pages would count
    as memory of this process.

    metadata: the table of contents, where it is not in the folder yet; it may grow by files that
        are being written, and what it lacks must not be read.

    Raises:
        UserError: no torch_dist checkpoint, an unsafe or damaged one.
    """

    def __init__(self, folder: Path | str, metadata: Metadata | None = None):
        self.folder = Path(folder)
        self._reader = FileSystemReader(self.folder)
        if metadata is None:
            check_checkpoint_pickles(self.folder)
            metadata = self._reader.read_metadata()
        self._metadata = metadata
        self._reader.set_up_storage_reader(self._metadata, is_coordinator=True)
        entries = self._metadata.state_dict_metadata.items()
        self.tensors = {
            key: TensorInfo(tuple(entry.size), entry.properties.dtype)
            for key, entry in entries
            if isinstance(entry, TensorStorageMetadata)
        }
        self._strips: dict[tuple, list[_Strip] | None] = {}

    def info(self, key: str, layer: int | None = None) -> TensorInfo:
        """Of a tensor or of one layer of it; `key` and `layer` as for `read`."""
        name, leading = self._locate(key, layer)
        found = self.tensors[name]
        return TensorInfo(found.shape[len(leading) :], found.dtype)

    def extents(self, key: str, layer: int | None = None) -> list[Extent]:
        """Where a tensor, or one layer of it, lies in the folder's files."""
        name, leading = self._locate(key, layer)
        found = []
        for chunk in self._chunks(name, leading):
            entry = self._metadata.storage_data[MetadataIndex(name, chunk.offsets)]
            path = self.folder / entry.relative_path
            found.append(Extent(path, entry.offset, entry.offset + entry.length))
        return found

    def has_same_contents(self, other: "CheckpointReader") -> bool:
        """Whether both tables of contents name the same tensors at the same places."""
        one, two = self._metadata, other._metadata
        return (
            one.state_dict_metadata == two.state_dict_metadata
            and one.storage_data == two.storage_data
        )

    def read(
        self, key: str, layer: int | None = None, rows: tuple[int, int] | None = None
    ) -> torch.Tensor:
        """A tensor, or one layer of it, or a range of rows (first, after the last) of that.

        The `*` in `key` stands for the layer number (from 0). Both forms of core are read: all
        layers stacked under one key, and one key per layer (`non_homogeneous_layers`).

        Raises:
            UserError: no such tensor or layer, or a missing or damaged file.
        """
        shape = list(self.info(key, layer).shape)
        start = rows[0] if rows is not None else 0
        if rows is not None:
            shape[0] = rows[1] - rows[0]
        target = torch.empty(shape, dtype=self.info(key, layer).dtype)
        self.read_rows(target, key, layer, start)
        return target

    def read_rows(
        self, target: torch.Tensor, key: str, layer: int | None = None, start: int = 0
    ) -> None:
        """Fills the contiguous `target` [rows, ...] with rows `start` and following.

        Args:
            target: of the tensor's dtype and of its shape, or that of one layer, but for the rows.
            key, layer: as for `read`.
            start: first row.

        Raises:
            UserError: as for `read`.
        """
        name, leading = self._locate(key, layer)
        shape = self.tensors[name].shape[len(leading) :]
        if shape and start + target.shape[0] > shape[0]:
            raise UserError(
                f"{name} in {self.folder} has {shape[0]} rows, not {start + target.shape[0]}"
            )
        try:
            strips = self._strips_of(name, leading)
            if strips is None:
                offsets = [*leading, start, *[0] * (len(shape) - 1)][: len(leading) + len(shape)]
                self._read_box(target.view(*[1 for _ in leading], *target.shape), name, offsets)
                return
            found = sum(strip.copy(target, start) for strip in strips)
        except UserError:
            raise
        except Exception as error:  # zipfile, pickle and torch raise many kinds on damaged files
            raise UserError(
                f"{name} in {self.folder} cannot be read ({_first_line(error)}); "
                f"the file is missing or damaged, use another checkpoint"
            ) from error
        if found != target.numel():
            raise UserError(f"{name} in {self.folder} has gaps; the checkpoint is incomplete")

    def _locate(self, key: str, layer: int | None) -> tuple[str, tuple[int, ...]]:
        """Name of the tensor, and the index of the layer in it where layers are stacked."""
        stacked = key.replace(".*", "")
        if layer is None or stacked not in self.tensors:
            name = key if layer is None else key.replace("*", str(layer))
            if name not in self.tensors:
                raise UserError(
                    f"{self.folder} has no tensor {name}; it holds {len(self.tensors)} others, "
                    f"so it was not written by this program's model"
                )
            return name, ()
        layers = self.tensors[stacked].shape[0]
        if layer >= layers:
            raise UserError(f"{self.folder} has {layers} layers of {stacked}, not {layer + 1}")
        return stacked, (layer,)

    def _strips_of(self, name: str, leading: tuple[int, ...]) -> list["_Strip"] | None:
        """Where rows of a vector, a matrix or one layer of it lie; None where torch must read."""
        if (name, leading) not in self._strips:
            self._strips[name, leading] = self._find_strips(name, leading)
        return self._strips[name, leading]

    def _find_strips(self, name: str, leading: tuple[int, ...]) -> list["_Strip"] | None:
        if not 1 <= len(self.tensors[name].shape) - len(leading) <= 2:
            return None
        strips = []
        for chunk in self._chunks(name, leading):
            payload = self._payload(name, chunk.offsets)
            if payload is None or payload.shape != tuple(chunk.sizes):
                return None
            strips.append(_Strip.of(payload, chunk, leading))
        return strips

    def _chunks(self, name: str, leading: tuple[int, ...]) -> Iterator[ChunkStorageMetadata]:
        """Those that hold something of the tensor, or of the layer."""
        depth = len(leading)
        for chunk in self._metadata.state_dict_metadata[name].chunks:
            boxes = zip(leading, chunk.offsets[:depth], chunk.sizes[:depth], strict=True)
            if all(first <= layer < first + count for layer, first, count in boxes):
                yield chunk

    def _payload(self, name: str, offsets: torch.Size) -> Payload | None:
        entry = self._metadata.storage_data[MetadataIndex(name, offsets)]
        path = self.folder / entry.relative_path
        if path.parent != self.folder:
            raise UserError(
                f"{name} of {self.folder} points to {path}; do not load this checkpoint"
            )
        if getattr(entry, "transform_descriptors", None):
            return None
        return find_payload(path, entry.offset, entry.length)

    def _read_box(self, target: torch.Tensor, key: str, offsets: Sequence[int]) -> None:
        """Fills `target` with the box of its shape at `offsets`, by torch's reader."""
        box = ChunkStorageMetadata(torch.Size(offsets), target.shape)
        entry = self._metadata.state_dict_metadata[key]
        items = create_read_items_for_chunk_list(key, entry, [box])
        if sum(math.prod(item.lengths) for item in items) != target.numel():
            raise UserError(f"{key} in {self.folder} has gaps; the checkpoint is incomplete")
        self._reader.read_data(LoadPlan(items), _IntoTensor(target)).wait()


@dataclass(frozen=True)
class _Strip:
    """A rectangle of a matrix (or a range of a vector) that lies together in a file.

    row, rows, column, columns: where it is in the matrix. whole: whether its rows are whole ones.
    """

    payload: Payload
    skip: int
    row: int
    rows: int
    column: int
    columns: int

    @classmethod
    def of(
        cls, payload: Payload, chunk: ChunkStorageMetadata, leading: tuple[int, ...]
    ) -> "_Strip":
        depth = len(leading)
        offsets, sizes = (*chunk.offsets[depth:], 0), (*chunk.sizes[depth:], 1)
        values = sizes[0] * sizes[1]
        skip = (leading[0] - chunk.offsets[0]) * values if leading else 0
        return cls(payload, skip, offsets[0], sizes[0], offsets[1], sizes[1])

    def copy(self, target: torch.Tensor, start: int) -> int:
        """Reads what it has of the rows from `start` on into `target`; returns the values read."""
        first, last = max(start, self.row), min(start + len(target), self.row + self.rows)
        if first >= last:
            return 0
        offset = self.skip + (first - self.row) * self.columns
        place = self.payload.offset + offset * self.payload.dtype.itemsize
        rows = target.view(len(target), -1)[first - start : last - start]
        if rows.shape[1] == self.columns:
            read_exactly(self.payload.path, place, rows)
        else:
            strip = torch.empty(last - first, self.columns, dtype=target.dtype)
            read_exactly(self.payload.path, place, strip)
            rows[:, self.column : self.column + self.columns] = strip
        return (last - first) * self.columns


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


def _first_line(error: Exception) -> str:
    return (str(error) or repr(error)).splitlines()[0]
