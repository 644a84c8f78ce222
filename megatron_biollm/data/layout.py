"""What the two files of an indexed corpus must look like.

PREFIX.bin holds the token ids one after another. PREFIX.idx holds, little-endian: the 9 bytes
`MMIDIDX 0 0`, uint64 version 1, uint8 dtype code, uint64 number of sequences, uint64 number of
document bounds, then int32 sequence lengths in tokens, int64 byte offsets of the sequences in
PREFIX.bin, and int64 document bounds (indices of sequences; the first is 0, the last is the number
of sequences). Source: megatron-core's `datasets/indexed_dataset.py`.
"""

import hashlib
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

    def _array(self, dtype: str, offset: int, count: int) -> np.ndarray:
        if not count:
            return np.empty(0, dtype)
        return np.memmap(f"{self.prefix}.idx", dtype, mode="r", offset=offset, shape=(count,))


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
    dtype, sequences, bounds = _read_header(idx)
    expected = HEADER_BYTES + 12 * sequences + 8 * bounds
    if idx.stat().st_size != expected:
        raise UserError(
            f"{idx} has {idx.stat().st_size} bytes, but its header announces {sequences} sequences "
            f"and {bounds} document bounds, which take {expected}; the file is truncated or "
            f"damaged: {REMEDY}"
        )
    layout = Layout(str(prefix), dtype, sequences, bounds, bin_file.stat().st_size)
    _check_ends(layout)
    return layout


def check_index(layout: Layout) -> None:
    """Reads all of PREFIX.idx: every pointer and every document bound must be in its place.

    Raises:
        UserError: naming the first sequence or document that is not.
    """
    lengths, pointers = layout.sequence_lengths(), layout.pointers()
    ends = np.cumsum(lengths, dtype=np.int64) * layout.dtype.itemsize
    wrong = np.flatnonzero((lengths < 0) | (pointers != ends - _bytes(lengths, layout)))
    if len(wrong):
        at = int(wrong[0])
        raise UserError(
            f"{layout.prefix}.idx: sequence {at} has {int(lengths[at])} tokens at byte "
            f"{int(pointers[at])} of a .bin of {layout.bin_bytes} bytes, but sequences must follow "
            f"one another, this one at byte {int(ends[at] - _bytes(lengths[at], layout))}: {REMEDY}"
        )
    steps = np.diff(layout.document_bounds())
    if len(steps) and steps.min() < 0:
        at = int(np.flatnonzero(steps < 0)[0])
        raise UserError(
            f"{layout.prefix}.idx: document {at} ends before it begins; document bounds must not "
            f"fall: {REMEDY}"
        )


def fingerprint(layout: Layout) -> str:
    """Hex digest of what the sample index depends on: the lengths of the sequences.

    Hashes both sizes and up to 256 evenly spaced 4 KiB windows of PREFIX.idx, so it is cheap for
    any corpus. Each pointer sums all lengths before it, so two corpora of one size that differ in
    a length differ in the windows unless the changes cancel between two of them.
    """
    path = Path(f"{layout.prefix}.idx")
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size} {layout.bin_bytes} ".encode())
    last = max(size - _WINDOW_BYTES, 0)
    starts = sorted({round(last * step / (_WINDOWS - 1)) for step in range(_WINDOWS)})
    with path.open("rb") as file:
        for start in starts:
            file.seek(start)
            digest.update(file.read(_WINDOW_BYTES))
    return digest.hexdigest()


def _read_header(idx: Path) -> tuple[np.dtype, int, int]:
    with idx.open("rb") as file:
        head = file.read(HEADER_BYTES)
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


def _check_ends(layout: Layout) -> None:
    bounds = layout.document_bounds()
    ends = (int(bounds[0]), int(bounds[-1])) if len(bounds) else None
    if ends != (0, layout.sequences):
        raise UserError(
            f"{layout.prefix}.idx: the document bounds run over {ends}, but they must run from 0 "
            f"to the {layout.sequences} sequences of the file: {REMEDY}"
        )
    end = 0
    if layout.sequences:
        end = int(layout.pointers()[-1]) + _bytes(layout.sequence_lengths()[-1], layout)
    if end != layout.bin_bytes:
        kind = "truncated" if layout.bin_bytes < end else "longer than its index"
        raise UserError(
            f"{layout.prefix}.bin has {layout.bin_bytes} bytes, but {layout.prefix}.idx ends at "
            f"byte {end} of it; the .bin is {kind}: {REMEDY}"
        )


def _bytes(lengths: np.ndarray | np.integer, layout: Layout) -> np.ndarray | int:
    return lengths.astype(np.int64) * layout.dtype.itemsize
