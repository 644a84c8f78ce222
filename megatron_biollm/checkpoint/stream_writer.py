"""A checkpoint of weights alone, written piece by piece in the format that core loads.

Through torch's distributed checkpoint (DCP), since core's own save holds a rank's whole state in
memory. Each file is complete by itself, so several processes may share the files of one folder;
its bytes depend on the pieces alone, not on who wrote what.
"""

import io
import json
import math
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.distributed.checkpoint import DefaultSavePlanner, FileSystemWriter
from torch.distributed.checkpoint.filesystem import FileSystem
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    SavePlan,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.storage import WriteResult

from megatron_biollm.checkpoint.digest import Digests, FileDigest

# 0.16.1 also writes its `common_backend` here, but defaults to the same; 0.19.2 rejects the field.
CORE_METADATA = {"sharded_backend": "torch_dist", "sharded_backend_version": 1}


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


@dataclass(frozen=True)
class WrittenFile:
    """What became of one file: torch's notes for the table of contents, and its digest."""

    index: int
    results: list[WriteResult]
    digests: Digests

    def enter(self, contents: Metadata) -> None:
        """Notes where this file's tensors lie."""
        contents.storage_data |= {each.index: each.storage_data for each in self.results}


class WeightsWriter:
    """Writes a torch_dist folder of weights alone; one piece at a time is in memory.

    files: the pieces of each file; the file at index i has the name that core gives to rank i's.
    empty_objects: keys of objects without content that core asks for (`_extra_state`).
    """

    def __init__(
        self,
        folder: Path | str,
        files: Sequence[Sequence[Piece]],
        empty_objects: Sequence[str] = (),
    ):
        self.folder, self.files, self.empty_objects = Path(folder), files, empty_objects
        self.folder.mkdir(parents=True, exist_ok=True)

    def write(
        self, index: int, on_written: Callable[[Piece], None] = lambda _: None
    ) -> WrittenFile:
        """Writes one file; `finish` gives it its place in the folder. Not forced to the disk.

        on_written: called as each piece is handed over, for progress.
        """
        objects = self.empty_objects if index == 0 else ()
        items = [*map(_object_item, objects), *map(_write_item, self.files[index])]
        writer = _Writer(self.folder)
        plans = [SavePlan([]) for _ in range(index)] + [SavePlan(items)]
        plan = writer.prepare_global_plan(plans)[index]
        planner = _OnDemand(self.files[index], on_written)
        results = writer.write_data(plan, planner).wait()
        # As they come from another process: the pickle that they end in tells equal from same.
        results = pickle.loads(pickle.dumps(results))
        return WrittenFile(index, results, writer.fs.digests)

    def contents(self) -> Metadata:
        """The table of contents before the first file; `WrittenFile.enter` adds the places."""
        pieces = [piece for pieces in self.files for piece in pieces]
        contents = _metadata(pieces, self.empty_objects)
        contents.storage_data = {}
        return contents

    def finish(self, written: Iterable[WrittenFile]) -> Digests:
        """Writes the table of contents; returns the digests of all the tensors' files."""
        written = sorted(written, key=lambda file: file.index)
        _Writer(self.folder).finish(self.contents(), [file.results for file in written])
        torch.save({}, self.folder / "common.pt")
        (self.folder / "metadata.json").write_text(json.dumps(CORE_METADATA))
        return {name: digest for file in written for name, digest in file.digests.items()}


def files_of(pieces: Sequence[Piece], max_file_bytes: int) -> list[list[Piece]]:
    """Consecutive pieces that make a file; a larger piece stands alone."""
    files, size = [[]], 0
    for piece in pieces:
        if files[-1] and size + piece.nbytes > max_file_bytes:
            files.append([])
            size = 0
        files[-1].append(piece)
        size += piece.nbytes
    return files


class _Writer(FileSystemWriter):
    """torch's, with digests taken on the way and nothing of this machine in the metadata."""

    def __init__(self, folder: Path):
        # 0 bytes ahead: on a machine with a GPU torch would reorder and collect tensors otherwise.
        super().__init__(folder, sync_files=False, per_thread_copy_ahead=0)
        self.set_up_storage_writer(is_coordinator=True)
        self.fs = _DigestingFiles()

    def storage_meta(self) -> StorageMeta:
        """Without the path and the random number that torch would note."""
        return StorageMeta()


class _DigestingFiles(FileSystem):
    """Files whose digest is known when they are written."""

    def __init__(self):
        super().__init__()
        self.digests: Digests = {}

    @contextmanager
    def create_stream(self, path: Path, mode: str) -> Iterator[io.IOBase]:
        with super().create_stream(path, mode) as stream:
            digesting = _Digesting(stream)
            yield digesting
            self.digests[path.name] = digesting.sum.entry()


class _Digesting(io.BufferedIOBase):
    """Digests writes and passes them on; torch neither seeks nor reads."""

    def __init__(self, stream: io.IOBase):
        self.stream, self.sum = stream, FileDigest()

    def write(self, data: bytes | memoryview) -> int:
        self.sum.update(data)
        return self.stream.write(data)

    def tell(self) -> int:
        return self.sum.count

    def flush(self) -> None:
        self.stream.flush()

    def fileno(self) -> int:
        return self.stream.fileno()

    def writable(self) -> bool:
        return True


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
