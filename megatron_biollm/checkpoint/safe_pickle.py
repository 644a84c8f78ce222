"""What a checkpoint's pickles may name, checked before anything unpickles them.

torch's distributed checkpoint writes its table of contents, ``.metadata``, as a plain pickle, and
small objects (``_extra_state``, random states) as ``torch.save`` blobs inside the ``.distcp``
files; torch and megatron-core read both without restriction, so a file from somebody else could
run code. The tensors are safe: torch reads them with ``weights_only=True``.
"""

import io
import pickle
from pathlib import Path

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, MetadataIndex

from megatron_biollm.config import UserError

_DTYPES = {f"torch.{name}" for name, value in vars(torch).items() if isinstance(value, torch.dtype)}

# Everything that torch 2.6 to 2.13 and megatron-core 0.16 to 0.19 put into `.metadata`.
METADATA_GLOBALS = frozenset(
    {
        "collections.OrderedDict",
        "pathlib.PosixPath",
        "pathlib._local.PosixPath",
        "torch.Size",
        "torch.distributed.checkpoint.filesystem._StorageInfo",
        "torch.distributed.checkpoint.metadata.BytesStorageMetadata",
        "torch.distributed.checkpoint.metadata.ChunkStorageMetadata",
        "torch.distributed.checkpoint.metadata.Metadata",
        "torch.distributed.checkpoint.metadata.MetadataIndex",
        "torch.distributed.checkpoint.metadata.StorageMeta",
        "torch.distributed.checkpoint.metadata.TensorProperties",
        "torch.distributed.checkpoint.metadata.TensorStorageMetadata",
        "torch.distributed.checkpoint.metadata._MEM_FORMAT_ENCODING",
        "torch.distributed.checkpoint.planner.SavePlan",
        "torch.distributed.checkpoint.planner.TensorWriteData",
        "torch.distributed.checkpoint.planner.WriteItem",
        "torch.distributed.checkpoint.planner.WriteItemType",
        "torch.serialization._get_layout",
    }
    | _DTYPES
)


def check_pickle_globals(path: Path | str, allowed: frozenset[str] = METADATA_GLOBALS) -> None:
    """Reads the pickle at `path` without running it: every class becomes an inert stand-in.

    Whatever opcode names a global (GLOBAL, STACK_GLOBAL, INST, EXT) has to ask `find_class`, so
    nothing outside `allowed` (dotted names) can be reached in disguise.

    Raises:
        UserError: a global outside `allowed`, or a file that is no whole pickle.
    """
    try:
        with Path(path).open("rb") as file:
            _InertUnpickler(file, Path(path), allowed).load()
    except UserError:
        raise
    except Exception as error:  # a damaged pickle fails in every way there is
        raise UserError(
            f"{path} is not a readable pickle ({error}); the file is damaged, "
            f"use another checkpoint"
        ) from error


def check_checkpoint_pickles(folder: Path | str) -> None:
    """Checks every pickle of a torch_dist checkpoint: `.metadata`, `common.pt` and object entries.

    Raises:
        UserError: the file or entry that names what it may not, or is damaged or missing.
    """
    folder = Path(folder)
    if not (folder / ".metadata").is_file():
        raise UserError(f"{folder} has no .metadata, so it is no torch_dist checkpoint folder")
    check_pickle_globals(folder / ".metadata")
    if (folder / "common.pt").is_file():
        _check_blob((folder / "common.pt").read_bytes(), f"{folder / 'common.pt'}")
    metadata = FileSystemReader(folder).read_metadata()
    for name, entry in metadata.state_dict_metadata.items():
        if isinstance(entry, BytesStorageMetadata):
            _check_blob(_read_entry(folder, metadata.storage_data, name), f"{name} in {folder}")


class _Inert:
    """Stands for an allowed class or function; takes any arguments and state, does nothing."""

    def __new__(cls, *args, **kwargs):
        return object.__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass


class _InertUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BufferedIOBase, path: Path, allowed: frozenset[str]):
        super().__init__(file)
        self.path, self.allowed = path, allowed

    def find_class(self, module: str, name: str) -> type:
        if f"{module}.{name}" not in self.allowed:
            raise UserError(
                f"{self.path} names {module}.{name}, which no checkpoint of this program needs and "
                f"which could run code when loaded; do not load this file"
            )
        return _Inert


def _read_entry(folder: Path, storage_data: dict, name: str) -> bytes:
    """The bytes of one object entry."""
    info = storage_data.get(MetadataIndex(name))
    path = folder / info.relative_path if info else None
    if path is None or path.parent != folder or not path.is_file():
        raise UserError(f"entry {name} of {folder} has no file there; the checkpoint is incomplete")
    with path.open("rb") as file:
        file.seek(info.offset)
        return file.read(info.length)


def _check_blob(blob: bytes, what: str) -> None:
    try:
        # Transformer Engine keeps its FP8 state as bytes.
        with torch.serialization.safe_globals([io.BytesIO]):
            torch.load(io.BytesIO(blob), map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise UserError(
            f"{what} holds more than plain values and tensors, or is damaged ({reason}); "
            f"do not load this checkpoint"
        ) from error
