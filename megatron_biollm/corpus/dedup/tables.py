"""What the deduplication stages leave for one another in a folder: who did what, and the documents.

Every task writes its files and, last of all, a record with the settings and the number of tasks. A
stage reads nothing before it has found the record of every task of the stage before, so a task that
is missing, was stopped, or is left from another run is refused and never taken as "no duplicates".

tasks/NNNNN.json: the record. documents/NNNNN.bin: one `ROW` per document, in order.
documents/NNNNN.names: one JSON list [source, id] per line, in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from megatron_biollm.atomic import whole_file
from megatron_biollm.config import UserError
from megatron_biollm.corpus.document import Document

# key: hash of source and id. source: place among the preferred sources. form: of a form source.
ROW = np.dtype(
    [
        ("key", "<u8"),
        ("words", "<u8"),
        ("version", "<u4"),
        ("source", "u1"),
        ("retracted", "u1"),
        ("form", "u1"),
    ]
)


def write_record(folder: Path, rank: int, world_size: int, **values: Any) -> None:
    """Says that task `rank` of `world_size` is done; `values` are plain JSON values."""
    with whole_file(_record_path(folder, rank)) as file:
        file.write(json.dumps({"tasks": world_size, **values}).encode())


def remove_record(folder: Path, rank: int) -> None:
    """Takes back that a task is done, before it begins again."""
    _record_path(folder, rank).unlink(missing_ok=True)


def read_records(folder: Path, stage: str, **expected: Any) -> list[dict[str, Any]]:
    """The records of all tasks of a stage.

    Raises:
        UserError: a task is missing, or a record is of another run: another number of tasks or
            other values than `expected`.
    """
    ranks = sorted(int(path.stem) for path in (folder / "tasks").glob("[0-9]*.json"))
    records = [json.loads(_record_path(folder, rank).read_text()) for rank in ranks]
    tasks = records[0]["tasks"] if records else 0
    missing = sorted(set(range(tasks)) - set(ranks))
    if missing or not records:
        what = f"of {tasks} tasks {len(missing)} are not done ({missing[:5]} ...)"
        raise UserError(
            f"{stage} in {folder}: {what if records else 'no task is done'}; a stage reads the one "
            "before only when it is complete: run that stage again, what is done is kept"
        )
    for rank, record in zip(ranks, records, strict=True):
        changed = {name for name in expected if record.get(name) != expected[name]}
        if record["tasks"] != tasks or changed:
            raise UserError(
                f"{stage} in {folder}: task {rank} belongs to another run "
                f"({', '.join(sorted(changed)) or 'number of tasks'} differs); remove the folder "
                "and run the stage again"
            )
    return records


def document_key(source: str, id: str) -> int:
    """64 bits that tell a document from all others."""
    return xxhash.xxh64_intdigest(f"{source}\0{id}".encode("utf-8", "surrogatepass"))


class TableWriter:
    """Writes what later stages need to know of the documents of one task, as they come.

    documents: how many there were so far.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        preferred_sources: Sequence[str],
        form_sources: Sequence[str],
    ):
        self.paths = (_rows_path(folder, rank), _names_path(folder, rank))
        self.preferred_sources = list(preferred_sources)
        self.form_sources = frozenset(form_sources)
        self.documents = 0
        self.keys = xxhash.xxh64()

    def __enter__(self) -> TableWriter:
        self.files = ExitStack()
        self.rows, self.names = (self.files.enter_context(whole_file(p)) for p in self.paths)
        return self

    def __exit__(self, *broken: Any) -> None:
        self.files.__exit__(*broken)

    def add(self, documents: Sequence[Document], words: np.ndarray) -> None:
        """words: how many each document has."""
        rows = np.zeros(len(documents), ROW)
        rows["words"] = words
        for row, document in zip(rows, documents, strict=True):
            row["key"] = document_key(document.source, document.id)
            row["source"] = self._place(document.source)
            row["form"] = document.source in self.form_sources
            row["retracted"] = bool(document.metadata.get("retracted"))
            row["version"] = _version(document.metadata.get("version"))
            self.names.write(f"{json.dumps([document.source, document.id])}\n".encode())
        self.rows.write(rows.tobytes())
        self.keys.update(np.ascontiguousarray(rows["key"]).tobytes())
        self.documents += len(rows)

    def _place(self, source: str) -> int:
        listed = self.preferred_sources
        return listed.index(source) if source in listed else len(listed)

    def summary(self) -> dict[str, Any]:
        """For the task's record: how many documents, and what tells them from others."""
        return {"documents": self.documents, "digest": self.keys.hexdigest()}


@dataclass(frozen=True)
class Tables:
    """The documents of all tasks, numbered through: task by task, in order.

    offsets: int64, tasks + 1; task t holds the documents `offsets[t]` to `offsets[t + 1]`.
    """

    folder: Path
    offsets: np.ndarray
    digests: list[str]

    @classmethod
    def open(cls, folder: Path, stage: str, settings: str) -> Tables:
        """Raises UserError as `read_records` does."""
        records = read_records(folder, stage, settings=settings)
        counts = [record["documents"] for record in records]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(folder, offsets, [record["digest"] for record in records])

    @property
    def tasks(self) -> int:
        return len(self.offsets) - 1

    def task_of(self, documents: np.ndarray) -> np.ndarray:
        """The task that each document belongs to."""
        return np.searchsorted(self.offsets, documents, side="right") - 1

    def gather(self, documents: np.ndarray, read: Callable[[int], np.ndarray]) -> np.ndarray:
        """One entry per document; `read(task)` gives the entries of all documents of a task."""
        result, tasks = None, self.task_of(documents)
        for task in np.unique(tasks):
            mine = tasks == task
            entries = read(int(task))[documents[mine] - self.offsets[task]]
            if result is None:
                result = np.empty((len(documents), *entries.shape[1:]), entries.dtype)
            result[mine] = entries
        return result

    def rows(self, documents: np.ndarray) -> np.ndarray:
        """`ROW`s of the given documents."""
        if not len(documents):
            return np.empty(0, ROW)
        return self.gather(documents, lambda task: map_rows(_rows_path(self.folder, task), ROW))

    def names(self, documents: np.ndarray) -> list[tuple[str, str]]:
        """(source, id) of the given documents."""
        names = [("", "")] * len(documents)
        tasks = self.task_of(documents)
        for task in np.unique(tasks):
            lines = _names_path(self.folder, int(task)).read_text().splitlines()
            for place in np.flatnonzero(tasks == task):
                names[place] = tuple(json.loads(lines[documents[place] - self.offsets[task]]))
        return names

    def by_preference(self, documents: np.ndarray, longest_first: bool = False) -> np.ndarray:
        """The places of the given documents from the one most worth keeping to the least.

        Not retracted before retracted, then the preferred source, the newest version, the most
        words, the lowest id. `longest_first` puts the number of words before all else.
        """
        rows, names = self.rows(documents), self.names(documents)
        words = -rows["words"].astype(np.int64)
        by_id = np.empty(len(names), np.int64)
        by_id[sorted(range(len(names)), key=lambda place: _id_order(*names[place]))] = range(
            len(names)
        )
        keys = [by_id, words, -rows["version"].astype(np.int64), rows["source"], rows["retracted"]]
        return np.lexsort([*keys, words] if longest_first else keys)


def map_rows(path: Path, dtype: np.dtype, width: int | None = None) -> np.ndarray:
    """A file of fixed-size entries as an array that is read where it is looked at."""
    if path.stat().st_size == 0:
        return np.empty((0, width) if width else 0, dtype)
    entries = np.memmap(path, dtype, mode="r")
    return entries.reshape(-1, width) if width else entries


def _version(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 32 else 0


def _record_path(folder: Path, rank: int) -> Path:
    return folder / "tasks" / f"{rank:05d}.json"


def _rows_path(folder: Path, rank: int) -> Path:
    return folder / "documents" / f"{rank:05d}.bin"


def _names_path(folder: Path, rank: int) -> Path:
    return folder / "documents" / f"{rank:05d}.names"


def _id_order(source: str, id: str) -> tuple[int, str, str]:
    # A number with fewer digits is the lower one.
    return len(id), id, source
