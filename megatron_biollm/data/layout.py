"""What the two files of an indexed corpus must look like.

PREFIX.bin holds the token ids one after another. PREFIX.idx holds, little-endian: the 9 bytes
`MMIDIDX 0 0`, uint64 version 1, uint8 dtype code, uint64 number of sequences, uint64 number of
document bounds, then int32 sequence lengths in tokens, int64 byte offsets of the sequences in
PREFIX.bin, and int64 document bounds (indices of sequences; the first is 0, the last is the number
of sequences). Source: megatron-core's `datasets/indexed_dataset.py`.
"""

import hashlib
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from megatron_biollm.config import UserError

HEADER = b"MMIDIDX\x00\x00"
HEADER_BYTES = len(HEADER) + struct.calcsize("<QBQQ")
DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
REMEDY = "write the corpus again with tools/preprocess_data.py, or copy both files again"

_WINDOWS, _WINDOW_BYTES = 256, 4096
_PIECE = 1 << 17  # sequences that are checked at a time


@dataclass(frozen=True)
class Layout:
    """The header of PREFIX.idx, checked against the sizes of both files."""

    prefix: str
    dtype: np.dtype
    sequences: int
    bounds: int
    bin_bytes: int

    @property
    def documents(self) -> int:
        return self.bounds - 1

    @property
    def tokens(self) -> int:
        return self.bin_bytes // self.dtype.itemsize

    def sequence_lengths(self) -> np.ndarray:
        """int32[sequences], in tokens; mapped, not read."""
        return self._array("<i4", HEADER_BYTES, self.sequences)

    def pointers(self) -> np.ndarray:
        """int64[sequences], in bytes; mapped, not read."""
        return self._array("<i8", HEADER_BYTES + 4 * self.sequences, self.sequences)

    def document_bounds(self) -> np.ndarray:
        """int64[documents + 1], in sequences; mapped, not read."""
        return self._array("<i8", HEADER_BYTES + 12 * self.sequences, self.bounds)

    def token_ids(self) -> np.ndarray:
        """The whole of PREFIX.bin; mapped, not read."""
        if not self.bin_bytes:
            return np.empty(0, self.dtype)
        return np.memmap(f"{self.prefix}.bin", self.dtype, mode="r")

    def tokens_between(self, first: int, end: int) -> int:
        """Tokens of the sequences from `first` to before `end`, from two places of PREFIX.idx."""
        return (self._pointer(end) - self._pointer(first)) // self.dtype.itemsize

    def _pointer(self, sequence: int) -> int:
        if sequence in (0, self.sequences):
            return self.bin_bytes if sequence else 0
        with Path(f"{self.prefix}.idx").open("rb", buffering=0) as file:
            offset = HEADER_BYTES + 4 * self.sequences + 8 * sequence
            return _integer(file.fileno(), offset, "<q")

    def _array(self, dtype: str, offset: int, count: int) -> np.ndarray:
        if not count:
            return np.empty(0, dtype)
        with Path(f"{self.prefix}.idx").open("rb", buffering=0) as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, dtype, count, offset)


def read_layout(prefix: str) -> Layout:
    """Reads the header and checks everything that costs no pass over the files.

    Raises:
        UserError: a file is missing, the header is not Megatron's, PREFIX.idx or PREFIX.bin is
            shorter or longer than the header says.
    """
    idx, bin_file = Path(f"{prefix}.idx"), Path(f"{prefix}.bin")
    for path in (idx, bin_file):
        if not path.is_file():
            raise UserError(
                f"{path} does not exist; a corpus is given by its prefix, without .bin or .idx: "
                "check the path, or make it with tools/preprocess_data.py"
            )
    with idx.open("rb", buffering=0) as file:
        dtype, sequences, bounds = _read_header(idx, file.read(HEADER_BYTES))
        size, expected = os.fstat(file.fileno()).st_size, HEADER_BYTES + 12 * sequences + 8 * bounds
        if size != expected:
            raise UserError(
                f"{idx} has {size} bytes, but its header announces {sequences} sequences "
                f"and {bounds} document bounds, which take {expected}; the file is truncated or "
                f"damaged: {REMEDY}"
            )
        layout = Layout(str(prefix), dtype, sequences, bounds, bin_file.stat().st_size)
        _check_ends(layout, file.fileno())
    return layout


def check_index(layout: Layout) -> None:
    """Reads all of PREFIX.idx: every pointer and every document bound must be in its place.

    Raises:
        UserError: naming the first sequence or document that is not.
    """
    lengths, pointers, end = layout.sequence_lengths(), layout.pointers(), 0
    for first in range(0, layout.sequences, _PIECE):
        piece = slice(first, first + _PIECE)
        end = _check_sequences(layout, first, lengths[piece], pointers[piece], end)
    bounds = layout.document_bounds()
    for first in range(0, layout.documents, _PIECE):
        steps = np.diff(bounds[first : first + _PIECE + 1])
        if len(steps) and steps.min() < 0:
            raise UserError(
                f"{layout.prefix}.idx: document {first + int(np.flatnonzero(steps < 0)[0])} ends "
                f"before it begins; document bounds must not fall: {REMEDY}"
            )


def _check_sequences(
    layout: Layout, first: int, lengths: np.ndarray, pointers: np.ndarray, start: int
) -> int:
    """Checks the sequences from number `first` on, which begin at byte `start`; their end."""
    ends = np.cumsum(lengths, dtype=np.int64)
    ends *= layout.dtype.itemsize
    ends += start
    if lengths.min() < 0 or pointers[0] != start or not np.array_equal(pointers[1:], ends[:-1]):
        starts = ends - _bytes(lengths, layout)
        at = int(np.flatnonzero((lengths < 0) | (pointers != starts))[0])
        raise UserError(
            f"{layout.prefix}.idx: sequence {first + at} has {int(lengths[at])} tokens at byte "
            f"{int(pointers[at])} of a .bin of {layout.bin_bytes} bytes, but sequences must follow "
            f"one another, this one at byte {int(starts[at])}: {REMEDY}"
        )
    return int(ends[-1])


def fingerprint(layout: Layout) -> str:
    """Hex digest of what the sample index depends on: the lengths of the sequences.

    Hashes both sizes and, up to 1 MiB, all lengths; of larger corpora 256 evenly spaced 4 KiB
    windows of PREFIX.idx, so it is cheap for any corpus. Each pointer sums all lengths before it,
    so two corpora of one size that differ in a length differ in the windows unless the changes
    cancel between two of them.
    """
    path = Path(f"{layout.prefix}.idx")
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(f"{size} {layout.bin_bytes} ".encode())
        if 4 * layout.sequences <= _WINDOWS * _WINDOW_BYTES:
            digest.update(os.pread(file.fileno(), 4 * layout.sequences, HEADER_BYTES))
            return digest.hexdigest()
        last = size - _WINDOW_BYTES
        for start in sorted({round(last * step / (_WINDOWS - 1)) for step in range(_WINDOWS)}):
            digest.update(os.pread(file.fileno(), _WINDOW_BYTES, start))
    return digest.hexdigest()


def _read_header(idx: Path, head: bytes) -> tuple[np.dtype, int, int]:
    if len(head) < HEADER_BYTES or not head.startswith(HEADER):
        raise UserError(
            f"{idx} does not begin with the {HEADER_BYTES}-byte header of Megatron's index "
            f"(it begins with {head[:9]!r}); it is another kind of file or damaged: {REMEDY}"
        )
    version, code, sequences, bounds = struct.unpack("<QBQQ", head[len(HEADER) :])
    if version != 1 or code not in DTYPES:
        raise UserError(
            f"{idx} has version {version} and dtype code {code}; this program reads version 1 with "
            f"integer tokens (codes {', '.join(map(str, DTYPES))}): {REMEDY}"
        )
    return np.dtype(DTYPES[code]), sequences, bounds


def _check_ends(layout: Layout, file: int) -> None:
    pointers = HEADER_BYTES + 4 * layout.sequences
    bounds, last = pointers + 8 * layout.sequences, layout.bounds - 1
    ends = tuple(_integer(file, bounds + 8 * at, "<q") for at in (0, last)) if last >= 0 else None
    if ends != (0, layout.sequences):
        raise UserError(
            f"{layout.prefix}.idx: the document bounds run over {ends}, but they must run from 0 "
            f"to the {layout.sequences} sequences of the file: {REMEDY}"
        )
    end = 0
    if layout.sequences:
        length = _integer(file, pointers - 4, "<i")
        end = _integer(file, bounds - 8, "<q") + length * layout.dtype.itemsize
    if end != layout.bin_bytes:
        kind = "truncated" if layout.bin_bytes < end else "longer than its index"
        raise UserError(
            f"{layout.prefix}.bin has {layout.bin_bytes} bytes, but {layout.prefix}.idx ends at "
            f"byte {end} of it; the .bin is {kind}: {REMEDY}"
        )


def _integer(file: int, offset: int, form: str) -> int:
    return struct.unpack(form, os.pread(file, struct.calcsize(form), offset))[0]


def _bytes(lengths: np.ndarray, layout: Layout) -> np.ndarray:
    return lengths.astype(np.int64) * layout.dtype.itemsize
