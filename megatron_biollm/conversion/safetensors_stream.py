"""safetensors files written and read one tensor at a time.

The `safetensors` package writes a file from tensors that are all in memory. The format allows
more: eight bytes with the length of a JSON header, the header with every tensor's dtype, shape
and byte range, then the bytes (https://github.com/huggingface/safetensors#format). Names, shapes
and dtypes of a model are known before its values, so the header comes first and one tensor at a
time follows.
"""

import json
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

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
    """Writes a folder of safetensors shards and their index, as `save_pretrained` names them.

    specs: every tensor, in the order in which `write` will be called.
    max_shard_bytes: a shard is closed before it would exceed this; a larger tensor stands alone.
    """

    def __init__(self, folder: Path, specs: Sequence[TensorSpec], max_shard_bytes: int = 5 * 10**9):
        self.folder = folder
        self.shards = list(_shards(specs, max_shard_bytes))
        self._order = self._tensors()

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Appends the next tensor, which must be `name` of the specs, with its shape and dtype."""
        spec = next(self._order)
        if (spec.name, spec.shape, spec.dtype) != (name, tuple(tensor.shape), tensor.dtype):
            raise ValueError(f"{name} {tuple(tensor.shape)} {tensor.dtype}, expected {spec}")
        self._file.write(memoryview(tensor.contiguous().view(-1).view(torch.uint8).numpy()))

    def close(self) -> None:
        """Ends the last shard and writes the index."""
        if next(self._order, None) is not None:
            raise ValueError("a tensor of the specs was not written")
        names = self._names()
        if len(names) == 1:
            return
        index = {
            "metadata": {"total_size": sum(s.nbytes for shard in self.shards for s in shard)},
            "weight_map": {
                s.name: n for n, shard in zip(names, self.shards, strict=True) for s in shard
            },
        }
        (self.folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")

    def _names(self) -> list[str]:
        count = len(self.shards)
        if count == 1:
            return [SINGLE]
        return [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]

    def _tensors(self) -> Iterator[TensorSpec]:
        for name, shard in zip(self._names(), self.shards, strict=True):
            with (self.folder / name).open("wb") as self._file:
                self._file.write(_header(shard))
                yield from shard


class ShardedReader:
    """Tensors of a Hugging Face folder by name; `names` lists them. Nothing else is unpickled.

    Raises:
        UserError: no safetensors there, a shard missing, or a file that is not one.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.files = self._files()
        for file in sorted(set(self.files.values())):
            if not (self.folder / file).is_file():
                raise UserError(f"{self.folder / file} is named by {INDEX} but missing; copy it")

    @property
    def names(self) -> set[str]:
        return set(self.files)

    def info(self, name: str) -> TensorSpec:
        """Shape and dtype, read from the header alone."""
        with self._open(name) as file:
            view = file.get_slice(name)
            codes = {code: dtype for dtype, code in _CODES.items()}
            if view.get_dtype() not in codes:
                raise UserError(
                    f"{name} in {self.folder} has dtype {view.get_dtype()}; only "
                    f"{', '.join(DTYPES)} can be converted, save the model in one of them"
                )
            return TensorSpec(name, tuple(view.get_shape()), codes[view.get_dtype()])

    def read(self, name: str) -> torch.Tensor:
        """The whole tensor."""
        # Opened each time: pages of a file that stays mapped count as memory of this process.
        with self._open(name) as file:
            return file.get_tensor(name)

    def _open(self, name: str):
        if name not in self.files:
            raise UserError(f"{self.folder} has no tensor {name}; the folder is incomplete")
        return _open_file(self.folder / self.files[name])

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
