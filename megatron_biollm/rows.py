"""Rows of numbers in a file of JSON lines, which survives a full disk and a killed writer."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any, Optional

_LONGEST_ROW = 1_000_000


class RowFile:
    """Appends rows, each at once, so that a killed run loses none.

    On a full disk no torn line stays: rows wait in memory, in order, until there is room.

    Attributes:
        waiting: rows that are not in the file yet.
    """

    def __init__(self, path: Path | str) -> None:
        self.file = Path(path).open("ab+", buffering=0)  # noqa: SIM115 (closed by `close`)
        self.size = self._end_of_last_row()
        self.file.truncate(self.size)
        self.waiting: list[dict[str, Any]] = []

    def append(self, row: dict[str, Any]) -> Optional[OSError]:
        """Writes the rows that wait and this one; gives what stood in the way, if anything."""
        self.waiting.append(row)
        return self.flush()

    def flush(self) -> Optional[OSError]:
        """Writes the rows that wait; gives what stood in the way, if anything."""
        while self.waiting:
            line = json.dumps(self.waiting[0]).encode() + b"\n"
            try:
                written = 0
                while written < len(line):
                    written += self.file.write(line[written:])
            except OSError as error:
                with contextlib.suppress(OSError):
                    self.file.truncate(self.size)
                return error
            self.size += len(line)
            self.waiting.pop(0)
        return None

    def close(self) -> None:
        self.file.close()

    def _end_of_last_row(self) -> int:
        """The size without a line that a killed writer has torn."""
        size = self.file.seek(0, os.SEEK_END)
        start = max(0, size - _LONGEST_ROW)
        self.file.seek(start)
        tail = self.file.read(size - start)
        return start + tail.rfind(b"\n") + 1


def read_rows(path: Path | str) -> list[dict]:
    """The rows of a file, oldest first; a line torn by a killed writer is left out."""
    with Path(path).open(encoding="utf-8", errors="replace") as file:
        return [row for line in file if (row := _row(line)) is not None]


def cut_rows_after(path: Path, step: int, then: dict | None = None) -> dict | None:
    """Removes the rows of later steps, and torn lines, in one move: a reader sees old or new.

    then: a row for the end, in place of those removed. Gives the last row that was left.
    """
    if not path.exists():
        return None
    last = None
    temporary = path.with_name(path.name + ".tmp")
    with path.open(encoding="utf-8", errors="replace") as old, temporary.open("w") as new:
        for line in old:
            row = _row(line)
            if row is not None and row.get("step", step + 1) <= step:
                new.write(json.dumps(row) + "\n")
                last = row
        if then is not None:
            new.write(json.dumps(then) + "\n")
        new.flush()
        os.fsync(new.fileno())
    temporary.replace(path)
    return last


def _row(line: str) -> dict | None:
    """The row of a line; None where a killed writer, or a machine that went down, tore it."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None
