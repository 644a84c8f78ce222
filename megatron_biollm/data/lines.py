"""Documents of an input, a shard at a time: JSON lines (plain, .gz, .zst) and Parquet.

A shard is what one worker encodes in one go. A large file is cut into several: a plain file at
line ends near multiples of a size, a Parquet file at its row groups. A packed file can only be
read from its start, so it is one shard when there are files enough for all workers, and else is
unpacked by the main process, which hands out its lines.
"""

import contextlib
import glob
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Optional

from megatron_biollm.config import UserError

_MIB = 1 << 20
_CHUNK_BYTES, _PACKED_BYTES = _MIB // 2, _MIB // 16
_SHARDS, _SMALLEST_SHARD, _LARGEST_SHARD = 64, 4 * _MIB, 64 * _MIB


@dataclass(frozen=True)
class Shard:
    """A part of one file.

    Attributes:
        file: its path.
        kind: "lines" (bytes [start, end) of a plain file: the lines that begin there), "packed"
            (all of a .gz or .zst file), "block" (lines that the main process unpacked, which
            begin at the unpacked byte `start`), "rows" (row group `start` of a Parquet file).
        first_line: number of its first line or row, from 1; None where only counting would tell.
    """

    file: str
    kind: str
    start: int = 0
    end: Optional[int] = None
    first_line: Optional[int] = 1


def find_inputs(pattern: str) -> list[str]:
    """The files that a path or a glob pattern names, sorted.

    Raises:
        UserError: there is none.
    """
    if Path(pattern).is_file():
        return [pattern]
    matches = glob.glob(pattern)  # noqa: PTH207 (Path.glob takes no absolute pattern)
    files = sorted(name for name in matches if Path(name).is_file())
    if not files:
        raise UserError(
            f"--input {pattern} names no file; give a file of JSON lines or Parquet, or a pattern"
        )
    return files


def plan_shards(files: list[str], workers: int) -> Iterator[tuple[Shard, Optional[bytes]]]:
    """The shards of the files in order, with the lines of a "block".

    The cuts depend on the sizes of the files, so a repeated run finds the same ones.

    Raises:
        UserError: a file cannot be read.
    """
    size = shard_bytes(sum(Path(file).stat().st_size for file in files))
    apart = sum(map(_is_packed, files)) >= workers
    for file in files:
        if file.endswith(".parquet"):
            yield from ((shard, None) for shard in _row_groups(file))
        elif not _is_packed(file):
            yield from ((shard, None) for shard in _ranges(file, size))
        elif apart:
            yield Shard(file, "packed"), None
        else:
            yield from _blocks(file, size)


def shard_bytes(total: int) -> int:
    """How large a shard is for an input of `total` bytes: enough for all workers, 4 to 64 MiB."""
    return min(max(total // _SHARDS, _SMALLEST_SHARD), _LARGEST_SHARD)


def read_lines(shard: Shard, block: Optional[bytes] = None) -> Iterator[list[bytes | bytearray]]:
    """The lines of a shard that is not Parquet, without line ends, some MiB at a time."""
    if shard.kind == "block":
        yield from _split(iter([block]))
    elif shard.kind == "packed":
        with contextlib.closing(_unpacked(shard.file)) as chunks:
            yield from _split(chunks)
    else:
        with Path(shard.file).open("rb") as file:
            yield from _split(_range_chunks(file, shard.start, shard.end))


def read_rows(
    shard: Shard, columns: Sequence[str], optional: Optional[Sequence[str]] = ()
) -> Iterator[list[dict[str, Any]]]:
    """The rows of a Parquet row group, in batches.

    optional: columns to read if they are there; None for all others.

    Raises:
        UserError: the file is damaged or has no such column.
    """
    with _open_parquet(shard.file) as file:
        missing = set(columns) - set(file.schema_arrow.names)
        if missing:
            raise UserError(
                f"{shard.file} has no column {', '.join(sorted(missing))}; it has "
                f"{', '.join(file.schema_arrow.names)}: name one of them with --json-keys"
            )
        names = file.schema_arrow.names
        more = names if optional is None else [name for name in optional if name in names]
        wanted = list(dict.fromkeys([*columns, *more]))
        batches = file.iter_batches(512, row_groups=[shard.start], columns=wanted)
        for batch in batches:
            yield batch.to_pylist()


def count_lines_before(shard: Shard) -> int:
    """Lines (or rows) of the file before the shard; reads a plain file up to there."""
    if shard.kind == "rows":
        with _open_parquet(shard.file) as file:
            groups = range(shard.start)
            return sum(file.metadata.row_group(group).num_rows for group in groups)
    if shard.first_line is not None:
        return shard.first_line - 1
    count, left = 0, shard.start
    with Path(shard.file).open("rb") as file:
        while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
            count, left = count + chunk.count(b"\n"), left - len(chunk)
        # A line that reaches over the start belongs to the shard before.
        return count if chunk.endswith(b"\n") else count + 1


def _is_packed(file: str) -> bool:
    return file.endswith((".gz", ".zst"))


def _ranges(file: str, size: int) -> Iterator[Shard]:
    total = Path(file).stat().st_size
    for start in range(0, max(total, 1), size):
        yield Shard(file, "lines", start, min(start + size, total), None if start else 1)


def _row_groups(file: str) -> Iterator[Shard]:
    with _open_parquet(file) as parquet:
        count = parquet.num_row_groups
    yield from (Shard(file, "rows", group, None, None) for group in range(count))


def _blocks(file: str, size: int) -> Iterator[tuple[Shard, bytes]]:
    """Whole lines, at least `size` bytes of them but for the last block."""
    parts: list[bytes] = []
    start, held, line = 0, 0, 1
    for chunk in _unpacked(file):
        cut = chunk.rfind(b"\n") + 1 if held + len(chunk) >= size else 0
        if not cut:
            parts.append(chunk)
            held += len(chunk)
            continue
        block = b"".join([*parts, chunk[:cut]])
        yield Shard(file, "block", start, start + len(block), line), block
        start, line = start + len(block), line + block.count(b"\n")
        parts, held = [chunk[cut:]], len(chunk) - cut
    if held:
        block = b"".join(parts)
        yield Shard(file, "block", start, start + len(block), line), block


def _split(chunks: Iterator[bytes]) -> Iterator[list[bytes | bytearray]]:
    """Chunks of text to lists of whole lines; a last line without an end counts."""
    rest = bytearray()
    for chunk in chunks:
        cut = chunk.rfind(b"\n")
        if cut >= 0:
            # A line longer than many chunks is handed on as it is: a copy would double it.
            first = chunk.index(b"\n")
            rest += chunk[:first]
            yield [rest, *chunk[first + 1 : cut].split(b"\n")] if cut > first else [rest]
            rest = bytearray()
        rest += chunk[cut + 1 :]
    if rest:
        yield [rest]


def _range_chunks(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    """The lines that begin in [start, end); the last of them may reach over the end."""
    position = start
    if start:
        position = _next_line(file, start - 1, end)
    file.seek(position)
    while position < end:
        chunk = file.read(min(_CHUNK_BYTES, end - position))
        if not chunk:
            return
        position += len(chunk)
        yield chunk
        if position == end and not chunk.endswith(b"\n"):
            yield from _until_line_end(file)


def _next_line(file: BinaryIO, start: int, end: int) -> int:
    """Where the first line after `start` begins; `end` if that is not before it."""
    file.seek(start)
    position = start
    while position < end:
        chunk = file.read(min(_CHUNK_BYTES, end - position))
        if (found := chunk.find(b"\n")) >= 0:
            return position + found + 1
        if not chunk:
            break
        position += len(chunk)
    return end


def _until_line_end(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        found = chunk.find(b"\n")
        if found >= 0:
            yield chunk[: found + 1]
            return
        yield chunk


def _unpacked(name: str) -> Iterator[bytes]:
    try:
        yield from _unpacked_zstd(name) if name.endswith(".zst") else _unpacked_gzip(name)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{name} is not a complete gzip file ({error}); fetch or compress it again"
        ) from error


def _unpacked_gzip(name: str) -> Iterator[bytes]:
    with gzip.open(name, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _unpacked_zstd(name: str) -> Iterator[bytes]:
    # A frame at a time: the library's own stream reader takes a torn frame for the end.
    try:
        import zstandard
    except ImportError as error:
        raise UserError(f"{name} needs the package zstandard: pip install zstandard") from error
    unpacker = zstandard.ZstdDecompressor().decompressobj
    frame, whole = unpacker(), True
    with Path(name).open("rb") as file:
        while packed := file.read(_PACKED_BYTES):
            try:
                while packed:
                    if chunk := frame.decompress(packed):
                        yield chunk
                    packed, whole = frame.unused_data, frame.eof
                    if whole:
                        frame = unpacker()
            except zstandard.ZstdError as error:
                raise _torn_zstd(name, error) from error
    if not whole:
        raise _torn_zstd(name, "it ends in the middle of a frame")


def _torn_zstd(name: str, why: object) -> UserError:
    return UserError(f"{name} is not a complete Zstandard file ({why}); fetch or compress it again")


@contextlib.contextmanager
def _open_parquet(name: str) -> Iterator[Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"{name} needs the package pyarrow: pip install pyarrow") from error
    try:
        # Without `pre_buffer=False` a whole row group is read ahead.
        with parquet.ParquetFile(name, pre_buffer=False, buffer_size=_MIB) as file:
            yield file
    except (pyarrow.ArrowInvalid, pyarrow.ArrowException, io.UnsupportedOperation) as error:
        raise UserError(
            f"{name} is not a whole Parquet file ({error}); fetch or write it again"
        ) from error
