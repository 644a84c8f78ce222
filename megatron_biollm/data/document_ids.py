r"""PREFIX.ids: the own ids (PMIDs, for example) of a corpus's documents, beside Megatron's files.

UTF-8 text, one line for each document of PREFIX.idx, in its order; a document without an id has an
empty line. A backslash, line feed and carriage return inside an id are `\\`, `\n` and `\r`. Nothing
that reads .bin and .idx needs it, and a corpus of documents without ids has none.
"""

import shutil
from pathlib import Path
from typing import Any, Optional

import numpy as np

from megatron_biollm.atomic import sync_file
from megatron_biollm.data.layout import read_layout
from megatron_biollm.log import get_logger

ID_KEY = "id"  # of a JSON line or Parquet row
_ESCAPES = (("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r"))
_STRIDE = 1024  # lines between two whose place is remembered
_CHUNK_BYTES = 1 << 24


def ids_path(prefix: str) -> Path:
    return Path(f"{prefix}.ids")


def id_line(record: dict[str, Any]) -> bytes:
    """The line of a record: its id where that is text or a number, else empty."""
    value = record.get(ID_KEY, "")
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    for plain, escaped in _ESCAPES:
        text = text.replace(plain, escaped)
    return text.encode("utf-8", "replace") + b"\n"


def has_ids(path: Path) -> bool:
    """Whether any line of the file is not empty."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            if chunk.strip(b"\n"):
                return True
    return False


def commit_ids(written: Path, prefix: str) -> None:
    """Gives a file of lines its name, or removes it (and an older corpus's) if it has no id."""
    if has_ids(written):
        written.replace(ids_path(prefix))
    else:
        written.unlink()
        ids_path(prefix).unlink(missing_ok=True)


def write_ids(prefixes: list[str], prefix: str, temporary: Path) -> None:
    """Writes the ids of corpora one after another, if all have them; else there are none."""
    paths = [ids_path(one) for one in prefixes]
    if not paths or not all(path.is_file() for path in paths):
        ids_path(prefix).unlink(missing_ok=True)
        return
    with temporary.open("wb") as file:
        for path in paths:
            with path.open("rb") as source:
                shutil.copyfileobj(source, file)
    sync_file(temporary)
    temporary.replace(ids_path(prefix))


class DocumentIds:
    """The ids of one corpus's documents, read as they are asked for."""

    def __init__(self, prefix: str):
        self.bounds = read_layout(prefix).document_bounds()
        self.lines = np.memmap(ids_path(prefix), np.uint8, "r")
        self.places, self.count = self._index()

    @classmethod
    def open(cls, prefix: str) -> Optional["DocumentIds"]:
        """None where the corpus has no ids, or those of another version of it."""
        path = ids_path(prefix)
        if not path.is_file() or not path.stat().st_size:
            return None
        ids = cls(prefix)
        if ids.count != len(ids.bounds) - 1:
            get_logger(__name__).warning(
                "%s has %d lines, but the corpus %d documents; it is left aside: encode again",
                path,
                ids.count,
                len(ids.bounds) - 1,
            )
            return None
        return ids

    def of_sequence(self, sequence: int) -> str:
        """The id of the document that holds a sequence; empty where it has none."""
        return self[int(np.searchsorted(self.bounds, sequence, side="right")) - 1]

    def __getitem__(self, document: int) -> str:
        start = int(self.places[document // _STRIDE])
        for _ in range(document % _STRIDE):
            start = self._line_end(start) + 1
        text = self.lines[start : self._line_end(start)].tobytes().decode("utf-8")
        return _unescaped(text)

    def _line_end(self, start: int, step: int = 256) -> int:
        while True:
            found = np.flatnonzero(self.lines[start : start + step] == 10)
            if len(found):
                return start + int(found[0])
            start += step

    def _index(self) -> tuple[np.ndarray, int]:
        """Where every `_STRIDE`-th line begins, and how many lines there are."""
        places, count = [np.zeros(1, np.int64)], 0
        for start in range(0, len(self.lines), _CHUNK_BYTES):
            ends = start + np.flatnonzero(self.lines[start : start + _CHUNK_BYTES] == 10)
            # The line after the n-th end (from 1) is line n.
            first = -(count + 1) % _STRIDE
            places.append(ends[first::_STRIDE] + 1)
            count += len(ends)
        return np.concatenate(places), count


def _unescaped(text: str) -> str:
    parts = text.split("\\\\")
    return "\\".join(part.replace("\\n", "\n").replace("\\r", "\r") for part in parts)
