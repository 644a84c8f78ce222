"""Our own work on documents as datatrove steps, with every drop counted and a few of them kept.

A *processor* is a picklable object with a `name` that turns a document into a document or a
`Drop`; an optional `tally` (a Counter) counts what it did. `DocumentStep` makes a datatrove step
of it, so that it runs on datatrove's local, SLURM and Ray executors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from datatrove.data import Document as DatatroveDocument
from datatrove.pipeline.base import PipelineStep

from megatron_biollm.corpus.document import Document

# Enough to judge a rule by; the rest is counted.
SAMPLES_PER_REASON = 5
SAMPLE_CHARACTERS = 600


@dataclass(frozen=True)
class Drop:
    """Why a document is not kept.

    reason: a snake_case word, counted. detail: what exactly was found, shown with samples.
    """

    reason: str
    detail: str = ""


@runtime_checkable
class Processor(Protocol):
    """What a stage does with one document."""

    name: str

    def __call__(self, document: Document) -> Document | Drop: ...


@dataclass
class Flow:
    """What went through one step of one task, by source.

    came, left: documents. characters: of the documents that left. dropped: by source and reason.
    samples: the first drops of each reason. tally: whatever the processor counted.
    """

    name: str
    came: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    dropped: dict[str, Counter[str]] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    tally: Counter[str] = field(default_factory=Counter)

    def keep(self, document: Document) -> None:
        self.left[document.source] += 1
        self.characters[document.source] += len(document.text)

    def drop(self, document: Document, drop: Drop) -> None:
        reasons = self.dropped.setdefault(document.source, Counter())
        reasons[drop.reason] += 1
        if reasons[drop.reason] <= SAMPLES_PER_REASON:
            self.samples.append(
                {
                    "source": document.source,
                    "id": document.id,
                    "reason": drop.reason,
                    "detail": drop.detail,
                    "text": document.text[:SAMPLE_CHARACTERS],
                }
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "came": dict(self.came),
            "left": dict(self.left),
            "characters": dict(self.characters),
            "dropped": {source: dict(reasons) for source, reasons in self.dropped.items()},
            "samples": self.samples,
            "tally": dict(self.tally),
        }


class DocumentStep(PipelineStep):
    """A processor as a datatrove step. `flow` holds its counts when the task is done."""

    type = "corpus"

    def __init__(self, processor: Processor):
        self.name = processor.name
        super().__init__()
        self.processor = processor
        self.flow = Flow(processor.name)

    def run(
        self, data: Iterable[DatatroveDocument], rank: int = 0, world_size: int = 1
    ) -> Iterator[DatatroveDocument]:
        # A process may run several tasks with one step.
        self.flow, before = Flow(self.name), Counter(getattr(self.processor, "tally", {}))
        for given in data:
            document = from_datatrove(given)
            self.flow.came[document.source] += 1
            with self.track_time():
                outcome = self.processor(document)
            if isinstance(outcome, Drop):
                self.stat_update("dropped", f"dropped_{outcome.reason}")
                self.flow.drop(document, outcome)
                continue
            self.flow.keep(outcome)
            yield to_datatrove(outcome)
        self.flow.tally = Counter(getattr(self.processor, "tally", {})) - before


def to_datatrove(document: Document) -> DatatroveDocument:
    """Our fields become datatrove's metadata."""
    record = document.to_record()
    return DatatroveDocument(text=record.pop("text"), id=record.pop("id"), metadata=record)


def from_datatrove(document: DatatroveDocument) -> Document:
    """The inverse of `to_datatrove`."""
    return Document.from_json({**document.metadata, "text": document.text, "id": document.id})
