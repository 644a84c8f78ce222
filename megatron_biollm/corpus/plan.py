"""Which task reads which files: the inventory of a corpus, kept between runs.

A task keeps its files as long as they stay as they are. Files that are new, or that changed in
size or time, go to new tasks, so that adding a day's update of PubMed costs that day's work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from megatron_biollm.config import UserError
from megatron_biollm.corpus.read import find_files


@dataclass(frozen=True)
class SourceFile:
    """One file to read: where it is, its size in bytes, its time, and what the user calls it."""

    path: str
    size: int
    mtime_ns: int
    source: str | None = None


@dataclass(frozen=True)
class Plan:
    """The files of each task; a task without files has lost them and does nothing."""

    tasks: tuple[tuple[SourceFile, ...], ...]

    @property
    def files(self) -> list[SourceFile]:
        return [file for task in self.tasks for file in task]

    def digest(self) -> str:
        """Changes when any file does."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        return json.dumps([[asdict(file) for file in task] for task in self.tasks], indent=1)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        tasks = json.loads(text)
        return cls(tuple(tuple(SourceFile(**file) for file in task) for task in tasks))


def list_files(
    paths: Iterable[str], paths_by_source: Mapping[str, Sequence[str]]
) -> list[SourceFile]:
    """All files to read, each once, in order of name.

    Args:
        paths: files and folders whose content tells what they are.
        paths_by_source: files and folders which the user says to be of a source.

    Raises:
        UserError: a path that does not exist, a file named as two sources, or no file at all.
    """
    known: dict[Path, str | None] = {}
    for source, own in paths_by_source.items():
        for file in _sources_in(own):
            if known.setdefault(file, source) != source:
                raise UserError(f"{file} is named as {known[file]} and as {source}; name it once")
    for file in _sources_in(paths):
        known.setdefault(file, None)
    if not known:
        raise UserError("there is no file to read; give paths, or sources.NAME.paths")
    return [_entry(file, source) for file, source in sorted(known.items())]


def make_plan(files: Sequence[SourceFile], task_bytes: int, before: Plan | None = None) -> Plan:
    """Deals files out to tasks of about `task_bytes` (one file is never split).

    Args:
        files: all of them.
        task_bytes: packed size at which a task is full.
        before: the plan of an earlier run: its tasks stay where none of their files has changed.
    """
    wanted = set(files)
    tasks = [task if wanted.issuperset(task) else () for task in (before.tasks if before else ())]
    planned = {file for task in tasks for file in task}
    for group in _groups([file for file in files if file not in planned], task_bytes):
        if () in tasks:
            tasks[tasks.index(())] = group
        else:
            tasks.append(group)
    return Plan(tuple(tasks))


def _groups(files: Sequence[SourceFile], task_bytes: int) -> list[tuple[SourceFile, ...]]:
    groups: list[list[SourceFile]] = []
    size = 0
    for file in files:
        if not groups or size + file.size > task_bytes:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += file.size
    return [tuple(group) for group in groups]


def _sources_in(paths: Iterable[str]) -> list[Path]:
    return [file.resolve() for file in find_files(list(paths))]


def _entry(file: Path, source: str | None) -> SourceFile:
    status = file.stat()
    return SourceFile(str(file), status.st_size, status.st_mtime_ns, source)
