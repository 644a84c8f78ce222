"""The first stage's own steps: source files in, claims out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datatrove.data import Document as DatatroveDocument
from datatrove.pipeline.base import PipelineStep

from megatron_biollm.corpus.claims import (
    GHOST,
    KINDS,
    WITHDRAWAL,
    ClaimFiles,
    identity_claims,
    text_claim,
    withdrawal_claim,
)
from megatron_biollm.corpus.download.fetch import digests
from megatron_biollm.corpus.download.manifest import licence_of
from megatron_biollm.corpus.local_executor import RestartTask
from megatron_biollm.corpus.plan import Plan, SourceFile
from megatron_biollm.corpus.read import read_file
from megatron_biollm.corpus.report import FileReport
from megatron_biollm.corpus.steps import from_datatrove, to_datatrove

_MD5 = re.compile(r"\b[0-9a-f]{32}\b")
# Kinds of which a later version speaks even when it is itself dropped.
_VERSIONED = {KINDS["pubmed"], KINDS["pmc"], KINDS["clinical_trials"]}


@dataclass
class Ledger:
    """Claims of the documents that a task has read, kept until it is known which ones stay.

    The steps of a task pass one document on at a time, so the last one read is the one at hand.
    """

    last_read: int = -1
    read: dict[int, list[tuple]] = field(default_factory=dict)
    withdrawn: list[tuple] = field(default_factory=list)

    def clear(self) -> None:
        self.last_read = -1
        self.read, self.withdrawn = {}, []

    def add(self, claims: list[tuple]) -> None:
        self.last_read += 1
        if claims:
            self.read[self.last_read] = claims


class ReadFiles(PipelineStep):
    """Yields the documents of the task's files; `report()` says what was met.

    A file that breaks off, or whose checksum is not the one beside it, is quarantined: the task
    starts again without it, so that no half of it gets through. `keep_broken` keeps what was whole.
    """

    type, name = "corpus", "read files"

    def __init__(self, plan: Plan, ledger: Ledger, text_documents: str, keep_broken: bool):
        super().__init__()
        self.plan, self.ledger = plan, ledger
        self.text_documents, self.keep_broken = text_documents, keep_broken
        self.quarantined: dict[str, FileReport] = {}
        self.files: list[dict[str, Any]] = []

    def run(
        self, data: Any = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[DatatroveDocument]:
        self.ledger.clear()
        self.files = []
        for file in self.plan.tasks[rank]:
            found = digests(Path(file.path))
            report = self.quarantined.get(file.path)
            if report is None:
                report = FileReport(file.path)
                yield from self._read(file, report, found.md5)
            self.files.append({**report.to_dict(), "size": file.size, "sha256": found.sha256})

    def report(self) -> dict[str, Any]:
        """One entry for each file, for the shard's sidecar."""
        return {"files": self.files}

    def _read(self, file: SourceFile, report: FileReport, md5: str) -> Iterator[DatatroveDocument]:
        path = Path(file.path)
        wrong = wrong_checksum(path, md5)
        if wrong:
            report.break_off("the whole file", wrong)
        else:
            licence = licence_of(path)
            for document in read_file(path, report, self.text_documents, file.source):
                if document.licence is None and licence is not None:
                    document = replace(document, licence=licence)
                self.ledger.add(identity_claims(document, path.name))
                yield to_datatrove(document)
        if report.broken and (wrong or not self.keep_broken):
            report.dropped["broken_file"] += report.documents
            report.documents, report.deleted = 0, []
            self.quarantined[file.path] = report
            raise RestartTask(f"{path} is quarantined: {report.faults[-1].reason}")
        self.ledger.withdrawn += [withdrawal_claim(pmid, path.name) for pmid in report.deleted]


class WriteClaims(PipelineStep):
    """Passes documents on and writes the claims of those that came this far, and of the others
    that are newer than what they replace."""

    type, name = "corpus", "write claims"

    def __init__(self, folder: Path, ledger: Ledger, buckets: int):
        super().__init__()
        self.folder, self.ledger, self.buckets = folder, ledger, buckets

    def run(
        self, data: Iterable[DatatroveDocument], rank: int = 0, world_size: int = 1
    ) -> Iterator[DatatroveDocument]:
        with (
            ClaimFiles(self.folder / "names", rank, self.buckets) as names,
            ClaimFiles(self.folder / "texts", rank, self.buckets) as texts,
        ):
            for number, given in enumerate(data):
                for claim in self.ledger.read.pop(self.ledger.last_read, []):
                    names.add(claim, number)
                self._add_dropped(names)
                texts.add(text_claim(from_datatrove(given)), number)
                yield given
            self._add_dropped(names)
            for claim in self.ledger.withdrawn:
                names.add(claim, WITHDRAWAL)
            names.commit()
            texts.commit()

    def _add_dropped(self, names: ClaimFiles) -> None:
        """Of documents that did not come this far, what they say of older versions."""
        for claims in self.ledger.read.values():
            for claim in claims:
                if claim[2] in _VERSIONED and claim[3] == 0:
                    names.add(claim, GHOST)
        self.ledger.read.clear()


def wrong_checksum(path: Path, md5: str) -> str | None:
    """What is wrong with a file of that checksum by the NAME.md5 beside it, as NLM gives one; None
    if nothing."""
    beside = path.with_name(f"{path.name}.md5")
    if not beside.is_file():
        return None
    expected = _MD5.search(beside.read_text(encoding="utf-8", errors="replace").lower())
    if expected is None or expected[0] == md5:
        return None
    return f"its MD5 is {md5}, but {beside.name} says {expected[0]}; download it again"
