"""Which documents a deduplication decided to drop, and the step that drops them.

The decision is written per shard: `NNNNNN.remove` (numbers of documents, 32 bits each),
`NNNNNN.clusters` (document, cluster) for all members of clusters, both as datatrove has them, and
`NNNNNN.details` with one JSON string per document to drop. The step checks that it meets the very
documents the decision was made on; datatrove's drops by number whatever it is given, and nothing
at all where a file is missing.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from datatrove.data import Document as DatatroveDocument
from datatrove.pipeline.base import PipelineStep

from megatron_biollm.atomic import whole_file
from megatron_biollm.config import UserError
from megatron_biollm.corpus.dedup.tables import (
    Tables,
    document_key,
    map_rows,
    read_records,
    remove_record,
    write_record,
)
from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.steps import SAMPLE_CHARACTERS, Drop, Flow, from_datatrove

_NUMBER = np.dtype("<u4")


@dataclass(frozen=True)
class Removals:
    """Documents to drop, numbered through.

    details: for each, what is kept in its stead. clusters: for each, the number of its cluster.
    kept: for each cluster in order of number, the document that stays.
    """

    documents: np.ndarray
    details: Sequence[str]
    clusters: np.ndarray
    kept: np.ndarray

    def write(self, folder: Path, tables: Tables, **summary: Any) -> None:
        """Writes the files of every task, also of those that lose nothing.

        summary: plain JSON values, for the report; "shown" are the clusters to keep samples of.
        """
        remove_record(folder, 0)
        order = np.argsort(self.documents, kind="stable")
        edges = np.searchsorted(self.documents[order], tables.offsets)
        members = np.concatenate([self.documents, self.kept])
        clusters = np.concatenate([self.clusters, np.arange(len(self.kept))])
        for task in range(tables.tasks):
            mine = order[edges[task] : edges[task + 1]]
            with whole_file(folder / f"{task:06d}.remove") as file:
                file.write((self.documents[mine] - tables.offsets[task]).astype(_NUMBER).tobytes())
            with whole_file(folder / f"{task:06d}.details") as file:
                file.write(
                    "".join(f"{json.dumps(self.details[place])}\n" for place in mine).encode()
                )
            with whole_file(folder / f"{task:06d}.clusters") as file:
                file.write(_of_task(tables, task, members, clusters).tobytes())
        write_record(folder, 0, 1, documents=tables.digests, **summary)


class RemoveListed(PipelineStep):
    """Drops what was decided to be dropped. One task per shard, the same shards as before.

    `flow` holds its counts when the task is done. The members of the clusters to be shown are
    written beside the decision, see `read_samples`.
    """

    type = "corpus"

    def __init__(self, folder: str | Path, reason: str):
        """folder: of `Removals.write`. reason: counted with every drop."""
        self.name = f"remove {reason.replace('_', ' ')}"
        super().__init__()
        self.folder, self.reason = Path(folder), reason
        self.flow = Flow(reason)

    def run(
        self, data: Iterable[DatatroveDocument], rank: int = 0, world_size: int = 1
    ) -> Iterator[DatatroveDocument]:
        record = read_records(self.folder, self.name)[0]
        if len(record["documents"]) != world_size:
            raise UserError(
                f"{self.name}: {world_size} tasks, but the decision in {self.folder} was made for "
                f"{len(record['documents'])}; use as many tasks as for the signatures"
            )
        keys, samples, drops = xxhash.xxh64(), [], _drops(self.folder, rank)
        clusters = _shown_clusters(self.folder, rank, set(record.get("shown", ())))
        for number, given in enumerate(data):
            document = from_datatrove(given)
            keys.update(struct.pack("<Q", document_key(document.source, document.id)))
            self.flow.came[document.source] += 1
            if number in clusters:
                samples.append(_sample(document, clusters[number], drops.get(number)))
            if number in drops:
                self.stat_update("dropped", f"dropped_{self.reason}")
                self.flow.drop(document, Drop(self.reason, drops[number]))
                continue
            self.flow.keep(document)
            yield given
        if keys.hexdigest() != record["documents"][rank]:
            raise UserError(
                f"{self.name}: the documents of shard {rank} are not those that the decision in "
                f"{self.folder} was made on; remove that folder and run its stages again"
            )
        with whole_file(self.folder / "samples" / f"{rank:06d}.jsonl") as file:
            file.write("".join(f"{json.dumps(sample)}\n" for sample in samples).encode())


def read_samples(folder: str | Path) -> list[dict[str, Any]]:
    """Members of some clusters: cluster, source, id, kept, detail, text (its first characters)."""
    paths = sorted((Path(folder) / "samples").glob("*.jsonl"))
    samples = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    return sorted(samples, key=lambda sample: (sample["cluster"], not sample["kept"]))


def read_summary(folder: str | Path) -> dict[str, Any]:
    """What `Removals.write` was given as its summary.

    Raises:
        UserError: the decision was not made yet.
    """
    return read_records(Path(folder), "removals")[0]


def _sample(document: Document, cluster: int, detail: str | None) -> dict[str, Any]:
    return {
        "cluster": cluster,
        "source": document.source,
        "id": document.id,
        "kept": detail is None,
        "detail": detail or "",
        "text": document.text[:SAMPLE_CHARACTERS],
    }


def _of_task(tables: Tables, task: int, members: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    mine = np.flatnonzero(tables.task_of(members) == task)
    pairs = np.stack([members[mine] - tables.offsets[task], clusters[mine]], axis=1)
    return pairs[np.argsort(pairs[:, 0])].astype(_NUMBER)


def _drops(folder: Path, rank: int) -> dict[int, str]:
    numbers = map_rows(folder / f"{rank:06d}.remove", _NUMBER).tolist()
    details = (folder / f"{rank:06d}.details").read_text().splitlines()
    return dict(zip(numbers, map(json.loads, details), strict=True))


def _shown_clusters(folder: Path, rank: int, shown: set[int]) -> dict[int, int]:
    pairs = map_rows(folder / f"{rank:06d}.clusters", _NUMBER, 2).tolist()
    return {number: cluster for number, cluster in pairs if cluster in shown}
