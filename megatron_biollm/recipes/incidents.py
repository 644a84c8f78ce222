"""What went wrong in a run's steps: run_dir/incidents.jsonl, one row an incident.

A row is a step that was not healthy, what was found and done, the positions of its samples in the
stream and the documents that these are made of. A rewind is decided when its row is on the disk: a
run that is cut off after that finishes the rewind when it starts again. Rows of steps that a
restart or a rewind went back over stay, marked `superseded`: the run had other numbers there since.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from megatron_biollm.atomic import whole_file
from megatron_biollm.data.document_ids import DocumentIds
from megatron_biollm.data.jumps import Ranges, merge_ranges
from megatron_biollm.data.stream import SampleStream
from megatron_biollm.log import get_logger
from megatron_biollm.rows import read_rows
from megatron_biollm.training.stability import Incident
from megatron_biollm.training.state import TrainState

Row = dict[str, Any]
INCIDENTS, REWOUND = "incidents.jsonl", "rewound.jsonl"
logger = get_logger(__name__)


def read_incidents(run_dir: Path | str) -> list[Row]:
    """Every row, oldest first; none where the file is absent."""
    path = Path(run_dir) / INCIDENTS
    return read_rows(path) if path.is_file() else []


def rewinds(rows: list[Row]) -> list[Row]:
    """The rows that sent the run back."""
    return [row for row in rows if row["action"] == "rewind"]


def jumped_samples(rows: list[Row]) -> Ranges:
    """Positions that rewinds have left out."""
    return merge_ranges(row["jumped"] for row in rewinds(rows))


def is_abandoned(state: TrainState, rows: list[Row]) -> bool:
    """Whether the checkpoint of `state` comes from before a rewind that went back beyond it.

    What was saved after a rewind has its jump in the state.
    """
    have = merge_ranges(state.jumped_samples)
    return any(
        state.step > row["rewind_to"] and merge_ranges([*have, row["jumped"]]) != have
        for row in rewinds(rows)
    )


class IncidentLog:
    """Writes and reads a run's incidents; rank 0 does, and every rank hears the same.

    Args:
        run_dir: of the run.
        stream: that it trains on, without jumps.
        on_first: calls a function on rank 0 and gives its value to every rank.
    """

    def __init__(self, run_dir: Path, stream: SampleStream, on_first: Callable[..., Any]) -> None:
        self.run_dir, self.stream, self.on_first = run_dir, stream, on_first

    def rows(self) -> list[Row]:
        """As `read_incidents`, on every rank."""
        return self.on_first(read_incidents, self.run_dir)

    def record(self, incident: Incident) -> None:
        """Has the incident on the disk, on behalf of every rank.

        Raises:
            UserError: it cannot be written.
        """
        self.on_first(self._record, incident)

    def start_after(self, step: int) -> None:
        """Marks what happened in later steps, which the run has still before it."""
        self.on_first(self._supersede, step)

    def _record(self, incident: Incident) -> None:
        row = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **_plain(incident)}
        row["documents"] = list(sample_documents(self.stream, incident.samples))
        if incident.action == "rewind":
            row["jumped_documents"] = self._list_jumped(incident.jumped)
            self._keep_rewound(incident.rewind_to)
        with (self.run_dir / INCIDENTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        logger.warning("%s: %s", incident, _what_is_done(incident))

    def _list_jumped(self, jumped: list[int]) -> str:
        """A file of its own: a jump may be hundreds of batches."""
        name = f"incidents/jumped_{jumped[0]}_{jumped[1]}.jsonl"
        with whole_file(self.run_dir / name) as file:
            for sample in sample_documents(self.stream, [jumped]):
                file.write(json.dumps(sample).encode() + b"\n")
        return name

    def _keep_rewound(self, step: int) -> None:
        """Copies the metrics of the steps that the run goes back over, which it will cut."""
        count = len(rewinds(read_incidents(self.run_dir))) + 1
        with (self.run_dir / REWOUND).open("a", encoding="utf-8") as file:
            for row in read_rows(self.run_dir / "metrics.jsonl"):
                if row["step"] > step:
                    file.write(json.dumps({"rewind": count, **row}) + "\n")

    def _supersede(self, step: int) -> None:
        rows = read_incidents(self.run_dir)
        if not rows:
            return
        with whole_file(self.run_dir / INCIDENTS) as file:
            for row in rows:
                mark = {"superseded": True} if row["step"] > step else {}
                file.write(json.dumps(row | mark).encode() + b"\n")


def sample_documents(stream: SampleStream, ranges: Ranges) -> Iterator[Row]:
    """Every sample of the ranges: position, source (a prefix), documents (the numbers of its
    sequences), and ids (the documents' own, in the same order) where the corpus has them.
    """
    ids = {source.prefix: DocumentIds.open(source.prefix) for source in stream.sources}
    for first, end in ranges:
        for position in range(first, end):
            place = stream.provenance(position)
            sample = {name: place[name] for name in ("source", "documents")}
            known = ids[place["source"]]
            if known is not None:
                sample["ids"] = [known.of_sequence(number) for number in place["documents"]]
            yield {"position": position, **sample}


def _plain(incident: Incident) -> Row:
    row = asdict(incident) | {"batch_hash": f"{incident.batch_hash:016x}"}
    if incident.value is not None and not math.isfinite(incident.value):
        row["value"] = str(incident.value)  # JSON has no such numbers
    return row


def _what_is_done(incident: Incident) -> str:
    done = {
        "report": "the update is made",
        "skip": "the update is skipped",
        "stop": "the run stops",
        "rewind": f"back to step {incident.rewind_to}, and over the samples of "
        f"{incident.jumped} in the stream",
    }[incident.action]
    return f"{done} ({incident.reason})" if incident.reason else done
