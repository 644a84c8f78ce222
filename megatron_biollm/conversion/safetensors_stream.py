"""safetensors files written and read a few rows at a time.

The `safetensors` package writes a file from tensors that are all in memory. The format allows
more: eight bytes with the length of a JSON header, the header with every tensor's dtype, shape
and byte range, then the bytes (https://github.com/huggingface/safetensors#format). Names, shapes
and dtypes of a model are known before its values, so the header comes first, and rows of any
tensor then have their place.
"""

import json
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from megatron_biollm.checkpoint.payload import Extent, read_exactly, write_exactly
from megatron_biollm.config import UserError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_CODES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of a tensor that is still to be written."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class ShardedWriter:
    """A folder of safetensors shards and their index, as `save_pretrained` names them.

    The specs alone decide where each tensor lies, so that its rows may be written in any order and
    by several processes, each with a writer of its own; `create` is called once, before.

    specs: every tensor, in the order of the files.
    max_shard_bytes: a shard ends before it would exceed this; a larger tensor stands alone.
    """

    def __init__(self, folder: Path, specs: Sequence[TensorSpec], max_shard_bytes: int = 5 * 10**9):
        self.folder = folder
        self.shards = list(_shards(specs, max_shard_bytes))
        self.places = dict(self._places())

    @property
    def files(self) -> list[str]:
        """Names of the shards."""
        count = len(self.shards)
        if count == 1:
            return [SINGLE]
        return [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(spec.nbytes for shard in self.shards for spec in shard)

    def create(self) -> None:
        """Makes every file in its full length, with its header, and the index."""
        for name, shard in zip(self.files, self.shards, strict=True):
            with (self.folder / name).open("wb") as file:
                file.write(_header(shard))
                file.truncate(file.tell() + sum(spec.nbytes for spec in shard))
        if len(self.shards) == 1:
            return
        index = {
            "metadata": {"total_size": self.nbytes},
            "weight_map": {
                s.name: n for n, shard in zip(self.files, self.shards, strict=True) for s in shard
            },
        }
        (self.folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")

    def write_rows(self, name: str, rows: torch.Tensor, start: int = 0) -> None:
        """Writes `rows` [rows, ...] into the tensor `name` from its row `start` on."""
        file, offset, spec = self.places[name]
        wanted = (spec.dtype, spec.shape[1:], True)
        if (rows.dtype, tuple(rows.shape[1:]), start + len(rows) <= spec.shape[0]) != wanted:
            raise ValueError(f"rows {start}.. of {name}: {rows.shape} {rows.dtype}, want {spec}")
        width = spec.nbytes // spec.shape[0]
        write_exactly(self.folder / file, offset + start * width, rows)

    def _places(self) -> Iterator[tuple[str, tuple[str, int, TensorSpec]]]:
        for name, shard in zip(self.files, self.shards, strict=True):
            offset = len(_header(shard))
            for spec in shard:
                yield spec.name, (name, offset, spec)
                offset += spec.nbytes


class ShardedReader:
    """Tensors of a Hugging Face folder by name; `names` lists them. Nothing else is unpickled.

    Raises:
        UserError: no safetensors there, a shard missing, or a file that is not one.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.files = self._files()
        self._headers: dict[str, tuple[int, dict]] = {}
        for file in sorted(set(self.files.values())):
            if not (self.folder / file).is_file():
                raise UserError(f"{self.folder / file} is named by {INDEX} but missing; copy it")

    @property
    def names(self) -> set[str]:
        return set(self.files)

    def info(self, name: str) -> TensorSpec:
        """Shape and dtype, read from the header alone."""
        return self._place(name)[0]

    def read(self, name: str) -> torch.Tensor:
        """The whole tensor."""
        spec = self.info(name)
        target = torch.empty(spec.shape, dtype=spec.dtype)
        self.read_rows(name, target)
        return target

    def read_rows(self, name: str, target: torch.Tensor, start: int = 0) -> None:
        """Fills the contiguous `target` [rows, ...] with rows `start` and following.

        The file is not mapped: pages of a mapped file count as memory of this process.
        """
        spec, path, offset = self._place(name)
        width = spec.nbytes // spec.shape[0]
        if target.dtype != spec.dtype or (start + len(target)) * width > spec.nbytes:
            raise ValueError(f"rows {start}.. of {name}: {target.shape} {target.dtype}, of {spec}")
        try:
            read_exactly(path, offset + start * width, target)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error}); copy it again") from error

    def extent(self, name: str) -> Extent:
        """Where the tensor lies."""
        spec, path, offset = self._place(name)
        return Extent(path, offset, offset + spec.nbytes)

    def _place(self, name: str) -> tuple[TensorSpec, Path, int]:
        if name not in self.files:
            raise UserError(f"{self.folder} has no tensor {name}; the folder is incomplete")
        file = self.files[name]
        if file not in self._headers:
            self._headers[file] = _read_header(self.folder / file)
        start, header = self._headers[file]
        if name not in header:
            raise UserError(f"{self.folder / file} lacks {name}, which {INDEX} puts there; copy it")
        entry = header[name]
        codes = {code: dtype for dtype, code in _CODES.items()}
        if entry["dtype"] not in codes:
            raise UserError(
                f"{name} in {self.folder} has dtype {entry['dtype']}; only "
                f"{', '.join(DTYPES)} can be converted, save the model in one of them"
            )
        spec = TensorSpec(name, tuple(entry["shape"]), codes[entry["dtype"]])
        return spec, self.folder / file, start + entry["data_offsets"][0]

    def _files(self) -> dict[str, str]:
        if (self.folder / INDEX).is_file():
            return self._index()
        if not (self.folder / SINGLE).is_file():
            raise UserError(
                f"{self.folder} has neither {SINGLE} nor {INDEX}; pickled weights (.bin) can run "
                f"code and are not read, so save the model again with safe_serialization=True"
            )
        with _open_file(self.folder / SINGLE) as file:
            return dict.fromkeys(file.keys(), SINGLE)

    def _index(self) -> dict[str, str]:
        path = self.folder / INDEX
        try:
            return dict(json.loads(path.read_text(encoding="utf-8"))["weight_map"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is no safetensors index ({error!r}); copy it again") from error


def _open_file(path: Path):
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or no safetensors file ({error})") from error


def _read_header(path: Path) -> tuple[int, dict]:
    """Where the values begin in a file, and its header, once safetensors has found both sound."""
    with _open_file(path), path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return 8 + length, json.loads(file.read(length))


def _shards(specs: Sequence[TensorSpec], limit: int) -> Iterator[list[TensorSpec]]:
    shard, size = [], 0
    for spec in specs:
        if shard and size + spec.nbytes > limit:
            yield shard
            shard, size = [], 0
        shard.append(spec)
        size += spec.nbytes
    yield shard


def _header(specs: Sequence[TensorSpec]) -> bytes:
    entries: dict = {"__metadata__": {"format": "pt"}}
    offset = 0
    for spec in specs:
        entries[spec.name] = {
            "dtype": _CODES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [offset, offset + spec.nbytes],
        }
        offset += spec.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
