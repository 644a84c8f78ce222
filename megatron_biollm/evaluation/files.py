"""The files of benchmarks: text, JSON and tables, plain or gzipped, with errors that name the line.

A file that was packed after its publication, so that `.gz` follows its name, is read the same.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from megatron_biollm.config import UserError
from megatron_biollm.log import get_logger

Held = TypeVar("Held")
_GZIP = b"\x1f\x8b"
# A field of a table may be a whole conversation.
_LONGEST_FIELD = 10_000_000


def read_text(path: Path) -> str:
    """The text of a file, in UTF-8, without a byte order mark; line ends as they are.

    Raises:
        UserError: it cannot be read, was cut off, or is not UTF-8.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(_GZIP) else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is damaged ({error}): download it again, whole") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}); give a readable file") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line} is not UTF-8 ({error}): download it again") from error


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        UserError: as `read_text`, or it is not JSON, such as a file that was cut off.
    """
    return _parse(read_text(path), path, 1)


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file with one on each line, each with `file:line`; empty lines are skipped.

    Raises:
        UserError: as `read_text`, or a line is no object in JSON.
    """
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        row = _parse(line, path, number)
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number} is a JSON {type(row).__name__}; it must be an object")
        yield f"{path}:{number}", row


def _parse(text: str, path: Path, line: int) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        where = line + getattr(error, "lineno", 1) - 1
        raise UserError(
            f"{path}:{where} is not JSON ({error}); where the file was cut off, download it again"
        ) from error


def read_table(path: Path, columns: int, delimiter: str = ",") -> Iterator[tuple[str, list[str]]]:
    """The rows of a table, quoted fields across lines too, each with `file:line` of its end.

    Raises:
        UserError: as `read_text`, or a row has not as many columns.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    rows = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
    try:
        for row in rows:
            if not row:
                continue
            if len(row) != columns:
                raise UserError(
                    f"{path}:{rows.line_num} has {len(row)} columns; it must have {columns}"
                )
            yield f"{path}:{rows.line_num}", row
    except csv.Error as error:
        raise UserError(
            f"{path}:{rows.line_num} is no table ({error}); where the file was cut off, "
            f"download it again"
        ) from error


def read_records(
    path: Path, names: Iterable[str], delimiter: str = ","
) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a table whose first row names its columns, each by name, with `file:line`.

    Args:
        names: all columns, in any order.

    Raises:
        UserError: as `read_table`, or the columns have other names.
    """
    names = list(names)
    rows = read_table(path, len(names), delimiter)
    where, header = next(rows, (f"{path}:1", []))
    if sorted(header) != sorted(names):
        raise UserError(f"{where} has the columns {header}; they must be {names}")
    for where, row in rows:
        yield where, dict(zip(header, row, strict=True))


def filled(
    items: list[Held], path: Path, published: Mapping[str, int] = MappingProxyType({})
) -> list[Held]:
    """The items of a file, of which there must be some.

    published: how many files of known names hold; of another number the user is warned.

    Raises:
        UserError: there is none.
    """
    if not items:
        raise UserError(f"{path} holds no item; where the file was cut off, download it again")
    expected = published.get(path.name.removesuffix(".gz"), len(items))
    if len(items) != expected:
        get_logger(__name__).warning(
            "%s holds %d items, and the published file of that name %d: download it again, or say "
            "with the score that it is another",
            path,
            len(items),
            expected,
        )
    return items


def field(row: Any, name: str, kind: type, where: str) -> Any:
    """A value of an object that was read.

    Raises:
        UserError: beginning with `where`: it has no such value, or one of another type.
    """
    if not isinstance(row, dict) or name not in row:
        found = ", ".join(map(repr, row)) if isinstance(row, dict) else type(row).__name__
        raise UserError(f"{where} has no {name!r} but {found}; its format is not the published one")
    value = row[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{where}: {name!r} is {value!r:.80}; it must be of type {kind.__name__}")
    return value
