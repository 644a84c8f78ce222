"""Containment stages 3 to 5: which document lies in which, who goes, and the step that drops them.

The shorter of two documents goes if the longer one stays, so a text is never lost with all the
documents that hold it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from datatrove.pipeline.base import PipelineStep

from megatron_biollm.atomic import whole_file
from megatron_biollm.config import UserError
from megatron_biollm.corpus.dedup.config import ContainmentConfig
from megatron_biollm.corpus.dedup.removals import Removals, RemoveListed
from megatron_biollm.corpus.dedup.sketches import (
    COUNT,
    SHARED,
    by_length,
    count_path,
    read_sorted,
    shared_folder,
    shared_id,
    sketch_folder,
    sketch_id,
)
from megatron_biollm.corpus.dedup.tables import (
    Tables,
    map_rows,
    read_records,
    remove_record,
    write_record,
)

CONTAINED = np.dtype([("short", "<i8"), ("long", "<i8"), ("share", "<f4")])

# Clusters whose members are kept for the report.
SHOWN_CLUSTERS = 40


class Shares(PipelineStep):
    """Stage 3, one task per shard: what share of each of its documents lies in a longer one."""

    type = "corpus"
    name = "containment 3: shares"

    def __init__(self, config: ContainmentConfig, folder: str | Path):
        """folder: where all stages of the search for contained documents leave their files."""
        super().__init__()
        self.settings = config
        self.sketches, self.shared = sketch_folder(folder), shared_folder(folder)
        self.folder = share_folder(folder)

    def run(self, data: None = None, rank: int = 0, world_size: int = 1) -> None:
        remove_record(self.folder, rank)
        tables = Tables.open(self.sketches, "sketches", sketch_id(self.settings))
        if tables.tasks != world_size:
            raise UserError(
                f"{world_size} tasks for {tables.tasks} shards of sketches; run one task per shard"
            )
        read_records(
            self.shared, "shared", sketches=tables.digests, settings=shared_id(self.settings)
        )
        with self.track_time("task"), whole_file(self.folder / f"{rank:05d}.bin") as file:
            file.write(self._contained(tables, rank).tobytes())
        write_record(self.folder, rank, world_size, **_made_from(tables, self.settings))

    def _contained(self, tables: Tables, rank: int) -> np.ndarray:
        """`CONTAINED` for every pair with at least the share that counts."""
        usable = map_rows(count_path(self.sketches, rank), np.dtype("<u4")).astype(int)
        common = read_sorted(self.shared / "common", COUNT, rank)
        np.subtract.at(usable, common["document"] - tables.offsets[rank], common["count"])
        shared = read_sorted(self.shared / "shared", SHARED, rank)
        pairs, places = np.unique(shared[["short", "long"]], return_inverse=True)
        counts = np.bincount(places, shared["count"], minlength=len(pairs))
        of_short = usable[pairs["short"] - tables.offsets[rank]]
        shares = counts / np.maximum(of_short, 1)
        kept = (of_short >= self.settings.min_shingles) & (shares >= self.settings.share)
        contained = np.empty(int(kept.sum()), CONTAINED)
        contained["short"], contained["long"] = pairs["short"][kept], pairs["long"][kept]
        contained["share"] = shares[kept]
        return contained[self._not_only_the_form(tables, contained, of_short[kept])]

    def _not_only_the_form(
        self, tables: Tables, contained: np.ndarray, of_short: np.ndarray
    ) -> np.ndarray:
        """Which pairs are no two records of one form, or are so and repeat each other all the same.

        One shingle more is taken to be missing: of a short record with another name or number in it
        a handful of shingles are kept, and often just those beside the change.
        """
        forms = tables.rows(contained["short"])["form"] & tables.rows(contained["long"])["form"]
        share = contained["share"] * of_short / (of_short + 1)
        return (forms == 0) | (share >= self.settings.form_share)


class Contained(PipelineStep):
    """Stage 4, one task: which documents go. Its memory: 20 bytes per pair that counts."""

    type = "corpus"
    name = "containment 4: contained"

    def __init__(self, config: ContainmentConfig, folder: str | Path):
        """folder: where all stages of the search for contained documents leave their files."""
        super().__init__()
        self.settings, self.sketches = config, sketch_folder(folder)
        self.shares, self.folder = share_folder(folder), contained_folder(folder)

    def run(self, data: None = None, rank: int = 0, world_size: int = 1) -> None:
        if world_size != 1:
            raise UserError(f"{world_size} tasks for the decision; it is made by 1 task")
        tables = Tables.open(self.sketches, "sketches", sketch_id(self.settings))
        read_records(self.shares, "shares", **_made_from(tables, self.settings))
        with self.track_time("task"):
            files = [self.shares / f"{task:05d}.bin" for task in range(tables.tasks)]
            pairs = np.concatenate([map_rows(path, CONTAINED) for path in files])
            dropped = resolve(tables, pairs)
            removals = _removals(tables, dropped)
            removals.write(
                self.folder,
                tables,
                clusters=len(removals.kept),
                shown=list(range(min(len(removals.kept), SHOWN_CLUSTERS))),
            )
        self.stat_update("to_remove", value=len(dropped))


def resolve(tables: Tables, pairs: np.ndarray) -> np.ndarray:
    """For each document that goes, the pair with the one that holds most of it among those kept.

    Args:
        pairs: `CONTAINED`.
    """
    members = np.unique(np.concatenate([pairs["short"], pairs["long"]]))
    length = np.empty(len(members), np.int64)
    length[by_length(tables, members)] = np.arange(len(members))
    short, long = (length[np.searchsorted(members, pairs[end])] for end in ("short", "long"))
    chosen: list[int] = []
    gone: set[int] = set()
    # From the longest document on: what it may lie in is decided by then.
    for place in np.lexsort((-long, -pairs["share"], -short)).tolist():
        if int(long[place]) not in gone and int(short[place]) not in gone:
            gone.add(int(short[place]))
            chosen.append(place)
    return pairs[chosen]


def contained_filter(folder: str | Path) -> RemoveListed:
    """Stage 5: drops the contained documents. One task per shard, as for the sketches."""
    return RemoveListed(contained_folder(folder), "contained")


def share_folder(folder: str | Path) -> Path:
    """Where stage 3 writes, below the folder of the search for contained documents."""
    return Path(folder) / "shares"


def contained_folder(folder: str | Path) -> Path:
    """Where stage 4 writes its decision."""
    return Path(folder) / "contained"


def _made_from(tables: Tables, config: ContainmentConfig) -> dict:
    rule = [shared_id(config), config.share, config.form_share, config.min_shingles]
    return {"sketches": tables.digests, "rule": rule}


def _removals(tables: Tables, dropped: np.ndarray) -> Removals:
    kept, clusters = np.unique(dropped["long"], return_inverse=True)
    names = [f"{source} {id}" for source, id in tables.names(kept)]
    return Removals(
        documents=dropped["short"],
        details=[
            f"contained_in {names[cluster]}, share {share:.2f}"
            for cluster, share in zip(clusters, dropped["share"], strict=True)
        ],
        clusters=clusters,
        kept=kept,
    )
