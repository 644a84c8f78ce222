"""PREFIX.idx written in a stream, byte for byte as megatron-core's builder writes it.

Core keeps all lengths of a corpus in memory and takes seconds to import; this takes constant
memory and neither torch nor core. The bytes are described in `megatron_biollm.data.layout`.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from megatron_biollm.data.layout import DTYPES, HEADER

_CHUNK = 1 << 20
_UINT16_VOCABULARY = 65500  # from here on Megatron-LM writes int32


def megatron_dtype(vocab_size: int) -> np.dtype:
    """The dtype that Megatron-LM writes for a vocabulary of this size."""
    return np.dtype("<u2" if vocab_size < _UINT16_VOCABULARY else "<i4")


def write_index(
    path: str | Path,
    dtype: np.dtype,
    lengths: Iterable[str | Path],
    documents: Iterable[str | Path],
) -> str:
    """Writes an index and returns its sha256.

    lengths: files of int32, the tokens of each sequence; documents: files of int32, the sequences
    of each document. Both are read several times, a piece at a time.
    """
    lengths, documents = list(lengths), list(documents)
    code = next(code for code, name in DTYPES.items() if np.dtype(name) == dtype)
    sequences, bounds = (
        sum(Path(f).stat().st_size for f in fs) // 4 for fs in (lengths, documents)
    )
    digest = hashlib.sha256()
    with Path(path).open("wb") as file:

        def write(data: bytes) -> None:
            digest.update(data)
            file.write(data)

        write(HEADER + struct.pack("<QBQQ", 1, code, sequences, bounds + 1))
        for chunk in _chunks(lengths):
            write(chunk.tobytes())
        for ends, chunk in _running_sums(lengths):
            write(((ends - chunk) * dtype.itemsize).tobytes())
        write(struct.pack("<q", 0))
        for ends, _ in _running_sums(documents):
            write(ends.tobytes())
    return digest.hexdigest()


def _count(paths: list[str | Path]) -> int:
    return sum(Path(path).stat().st_size for path in paths) // 4


def _chunks(paths: list[str | Path]) -> Iterator[np.ndarray]:
    for path in paths:
        with Path(path).open("rb") as file:
            while data := file.read(4 * _CHUNK):
                yield np.frombuffer(data, "<i4")


def _running_sums(paths: list[str | Path]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    total = 0
    for chunk in _chunks(paths):
        ends = np.cumsum(chunk, dtype=np.int64) + total
        total = int(ends[-1])
        yield ends, chunk
