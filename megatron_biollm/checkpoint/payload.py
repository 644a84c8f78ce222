"""Where the values of a saved tensor lie in its file, so that any rows of it can be read alone.

torch's distributed checkpoint keeps each tensor as a `torch.save` archive inside a larger file: a
zip archive without compression, of which the entry `data.pkl` says dtype, shape and strides, and
`data/0` holds the values. `torch.load` reads an archive whole, into fresh memory, which costs more
time than everything else in a conversion.
"""

import io
import math
import os
import pickle
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from megatron_biollm.checkpoint.page_cache import forget_file, touch_only

# Storage classes as torch.save names them; reading others is left to torch.
_STORAGES = {
    "FloatStorage": torch.float32,
    "BFloat16Storage": torch.bfloat16,
    "HalfStorage": torch.float16,
}
# APPNOTE.TXT 4.3.7: a local file header has 30 bytes, the last four of them are two lengths.
_HEADER_BYTES = 30


@dataclass(frozen=True)
class Payload:
    """Values of one tensor, contiguous and little-endian.

    path, offset: file and first byte. shape, dtype: of the tensor.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Extent:
    """Bytes `start` to `stop` of a file."""

    path: Path
    start: int
    stop: int

    def drop(self) -> None:
        """Takes them out of the machine's memory, where the disk has them already."""
        forget_file(self.path, self.start, self.stop)


def find_payload(path: Path, start: int, length: int) -> Payload | None:
    """The values of the tensor archive in bytes `start` to `start + length` of a file.

    Nothing of the pickle runs. Returns None for an archive of another form than contiguous plain
    values (a view, another byte order, compression): torch's own reader must read it.

    Raises:
        OSError, zipfile.BadZipFile, pickle.UnpicklingError: the file is missing or damaged.
    """
    with _touched(path) as file, zipfile.ZipFile(_Part(file, start, length)) as archive:
        entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        for entry in entries.values():  # which files written without a CRC-32 lack
            entry.CRC = None
        described = _describe(archive.read(entries["data.pkl"]))
        values = entries.get("data/0")
        order = archive.read(entries["byteorder"]) if "byteorder" in entries else b"little"
        if described is None or values is None or order != b"little":
            return None
        if values.compress_type != zipfile.ZIP_STORED:
            return None
        file.seek(start + values.header_offset)
        name, extra = struct.unpack("<HH", file.read(_HEADER_BYTES)[-4:])
        offset = start + values.header_offset + _HEADER_BYTES + name + extra
    shape, dtype = described
    payload = Payload(path, offset, shape, dtype)
    return payload if payload.nbytes == values.file_size else None


def _touched(path: Path) -> BinaryIO:
    """A file of which little is read, here and there."""
    file = path.open("rb")
    touch_only(file.fileno())
    return file


def read_exactly(path: Path, offset: int, target: torch.Tensor) -> None:
    """Fills the contiguous `target` with the bytes from `offset` on, without mapping the file.

    Raises:
        OSError: the file is missing or ends before.
    """
    wanted = as_bytes(target)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while wanted:
            count = os.preadv(descriptor, [wanted], offset)
            if count == 0:
                raise OSError(f"{path} ends {len(wanted)} bytes too early")
            wanted, offset = wanted[count:], offset + count
    finally:
        os.close(descriptor)


def write_exactly(path: Path, offset: int, values: torch.Tensor) -> None:
    """Writes the contiguous `values` into an existing file from `offset` on.

    Raises:
        OSError: the disk is full, or there is no such file.
    """
    left = as_bytes(values)
    descriptor = os.open(path, os.O_WRONLY)
    try:
        while left:
            count = os.pwrite(descriptor, left, offset)
            left, offset = left[count:], offset + count
    finally:
        os.close(descriptor)


def as_bytes(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous tensor."""
    return memoryview(tensor.view(-1).view(torch.uint8).numpy())


class _Part(io.RawIOBase):
    """A range of a file as a file of its own; zipfile looks for its table at the end."""

    def __init__(self, file: BinaryIO, start: int, length: int):
        self.file, self.start, self.length, self.position = file, start, length, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.length}[whence]
        self.position = max(0, base + offset)
        return self.position

    def tell(self) -> int:
        return self.position

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.length - self.position)
        self.file.seek(self.start + self.position)
        data = self.file.read(left if size < 0 else min(size, left))
        self.position += len(data)
        return data


class _Described(pickle.Unpickler):
    """Gives the arguments that a tensor would be rebuilt from, and builds nothing."""

    def persistent_load(self, saved: Any) -> Any:
        return saved

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _arguments
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch" and name in _STORAGES:
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is not part of a plain tensor")


def _arguments(*arguments: Any) -> tuple:
    return arguments


def _describe(pickled: bytes) -> tuple[tuple[int, ...], torch.dtype] | None:
    """Shape and dtype of a contiguous tensor with a storage of its own; None for any other."""
    try:
        storage, first, shape, strides, *_ = _Described(io.BytesIO(pickled)).load()
        kind, storage_type, key, _, count = storage
    except (pickle.UnpicklingError, TypeError, ValueError):
        return None
    contiguous = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    whole = first == 0 and count == math.prod(shape)
    if kind != "storage" or key != "0" or not whole or tuple(strides) != contiguous:
        return None
    return tuple(shape), _STORAGES[storage_type]
