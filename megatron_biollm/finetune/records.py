"""Records of tables and JSON files, one after another, each with its place in the file."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.data.lines import plan_shards, read_rows
from megatron_biollm.finetune.conversations import numbered_lines
from megatron_biollm.finetune.imported import Dropped, Imported

Make = Callable[[dict[str, Any], str], Imported | Dropped]
# `file:line` (`file[number]` in a list), and what is there.
Located = tuple[str, dict[str, Any] | Dropped]

# Python's csv refuses fields above 128 kB, and a note with its conversation may be longer.
_LONGEST_FIELD = 1 << 30
_NO_OBJECT = "a record is not an object"
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def import_records(path: Path, make: Make) -> Iterator[Imported | Dropped]:
    """What `make` makes of each record of a file, given the record and its place.

    A file is JSON lines, a JSON list (or `{"data": [...]}`), CSV or TSV, also .gz, or Parquet. A
    line without a record is dropped.

    Raises:
        UserError: absent, unreadable or not of this form, or as `make` does.
    """
    for where, record in _records(path):
        yield record if isinstance(record, Dropped) else make(record, where)


def _records(path: Path) -> Iterator[Located]:
    if not path.is_file():
        raise UserError(f"{path} is not a file; give JSON lines, JSON, CSV, TSV or Parquet")
    if path.suffix == ".parquet":
        return _parquet(path)
    delimiter = _DELIMITERS.get(_suffix(path))
    if delimiter is not None:
        return _table(path, delimiter)
    if _suffix(path) == ".json" and _is_one_value(path):
        return _list(path)
    return _json_lines(path)


def field(record: dict[str, Any], names: Sequence[str], where: str) -> str:
    """The text of the first of some fields that a record has, without outer spaces.

    Raises:
        UserError: it has none of them.
    """
    for name in names:
        if name in record:
            value = record[name]
            return value.strip() if isinstance(value, str) else ""
    raise UserError(
        f"{where} has no {' or '.join(names)}, but {', '.join(map(str, record))}; name the right "
        f"field, or give another --format"
    )


def read_bytes(path: Path) -> bytes:
    """The file, unpacked where its name ends in .gz.

    Raises:
        UserError: it cannot be read.
    """
    try:
        packed = path.read_bytes()
        return gzip.decompress(packed) if path.suffix == ".gz" else packed
    except (OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read ({error}); fetch it again") from error


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def _table(path: Path, delimiter: str) -> Iterator[Located]:
    csv.field_size_limit(_LONGEST_FIELD)
    text = io.StringIO(_decoded(path), newline="")
    reader = csv.DictReader(text, delimiter=delimiter, strict=True)
    try:
        for row in reader:
            yield f"{path}:{reader.line_num}", {k: v or "" for k, v in row.items() if k is not None}
    except csv.Error as error:
        raise UserError(
            f"{path}:{reader.line_num} is not a table ({error}); quote fields that hold quotes, "
            f"line ends or {delimiter!r}"
        ) from error


def _parquet(path: Path) -> Iterator[Located]:
    number = 0
    for shard, _ in plan_shards([str(path)], workers=1):
        for rows in read_rows(shard, (), optional=None):
            for row in rows:
                number += 1
                yield f"{path}:{number}", row


def _is_one_value(path: Path) -> bool:
    """Whether the file is one JSON value, and not one a line."""
    lines = [line for line in read_bytes(path).splitlines() if line.strip()][:2]
    try:
        return not (lines and isinstance(json.loads(lines[0]), dict) and len(lines) > 1)
    except ValueError:
        return True


def _list(path: Path) -> Iterator[Located]:
    try:
        value = json.loads(_decoded(path))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); fetch it again") from error
    records = value.get("data", [value]) if isinstance(value, dict) else value
    if not isinstance(records, list):
        raise UserError(f"{path} is {type(value).__name__}; it must be a list of records")
    for number, record in enumerate(records):
        where = f"{path}[{number}]"
        yield where, record if isinstance(record, dict) else Dropped(where, _NO_OBJECT)


def _json_lines(path: Path) -> Iterator[Located]:
    for where, line in numbered_lines(path):
        try:
            record = json.loads(line)
        except ValueError:
            yield where, Dropped(where, "a line is not JSON")
        else:
            yield where, record if isinstance(record, dict) else Dropped(where, _NO_OBJECT)


def _decoded(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 at byte {error.start}; convert it, for example with iconv -f "
            f"latin1 -t utf-8"
        ) from error
