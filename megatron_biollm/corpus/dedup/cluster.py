"""MinHash stage 3: which document of each cluster is kept.

datatrove's stage 3 keeps whichever document its union-find ends at and drops everything that a
chain of pairs reaches. Here the document kept is the one most worth keeping (`by_preference`), and
one is dropped only if it is like the one kept in its stead: what only a chain of ever different
texts leads to (forms filled in for many patients, for example) stays. Its files are kept:
`NNNNNN.remove` (the numbers of the documents to drop) and `NNNNNN.clusters` (document, cluster);
`NNNNNN.details` names beside each dropped document the one kept in its stead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.pipeline.dedup.minhash import MinhashDedupCluster
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from megatron_biollm.config import UserError
from megatron_biollm.corpus.dedup.buckets import alike_id, pair_folder
from megatron_biollm.corpus.dedup.config import NearDuplicateConfig
from megatron_biollm.corpus.dedup.removals import Removals, RemoveListed
from megatron_biollm.corpus.dedup.rule import like_the_first
from megatron_biollm.corpus.dedup.signatures import (
    datatrove_config,
    read_rows,
    signature_folder,
    signature_id,
)
from megatron_biollm.corpus.dedup.tables import Tables, map_rows, read_records

# Clusters whose members are kept for the report.
SHOWN_CLUSTERS = 40

# Members of clusters whose signatures are in memory at once, 384 bytes each.
_MEMBERS_AT_ONCE = 1 << 20

_NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True)
class Cluster:
    """Places of documents: the one kept and those dropped, and how similar each of these is."""

    kept: int
    dropped: np.ndarray
    similarity: np.ndarray


class Clusters(MinhashDedupCluster):
    """One task. Its memory: some 300 bytes per document that has a near-duplicate."""

    type = "corpus"
    name = "near-duplicates 3: clusters"

    def __init__(self, config: NearDuplicateConfig, folder: str | Path):
        """folder: where all stages of near-duplicate removal leave their files."""
        self.settings = config
        self.signatures, self.pairs = signature_folder(folder), pair_folder(folder)
        self.output = cluster_folder(folder)
        super().__init__(str(self.pairs), str(self.output), config=datatrove_config(config))

    def run(self, data: None = None, rank: int = 0, world_size: int = 1) -> None:
        if world_size != 1:
            raise UserError(f"{world_size} tasks for the clusters; they are found by 1 task")
        tables = Tables.open(self.signatures, "signatures", signature_id(self.settings))
        read_records(self.pairs, "pairs", signatures=tables.digests, alike=alike_id(self.settings))
        with self.track_time("task"):
            members, labels = components(read_pairs(self.pairs, tables))
            order = tables.by_preference(members)
            members, labels = members[order], labels[order]
            found = self._clusters(tables, members, labels)
            removals = _removals(tables, members, found)
            removals.write(self.output, tables, **_summary(found))
        self.stat_update("clusters", value=len(found))
        self.stat_update("to_remove", value=len(removals.documents))

    def _clusters(self, tables: Tables, members: np.ndarray, labels: np.ndarray) -> list[Cluster]:
        found = []
        for places in _blocks(labels):
            rows = read_rows(tables, members[places])
            forms = tables.rows(members[places])["form"].astype(bool)
            for component in _components_of(labels[places]):
                for cluster in split(rows[component], forms[component], self.settings):
                    found.append(
                        Cluster(
                            int(places[component[cluster.kept]]),
                            places[component[cluster.dropped]],
                            cluster.similarity,
                        )
                    )
        return found


def cluster_folder(folder: str | Path) -> Path:
    """Where stage 3 writes, below the folder of near-duplicate removal."""
    return Path(folder) / "clusters"


def near_duplicate_filter(folder: str | Path) -> RemoveListed:
    """Stage 4: drops the near-duplicates. One task per shard, as for the signatures."""
    return RemoveListed(cluster_folder(folder), "near_duplicate")


def read_pairs(folder: Path, tables: Tables) -> np.ndarray:
    """All pairs of stage 2, each once: int64, (pairs, 2), documents numbered through."""
    pairs = [np.empty((0, 2), np.int64)]
    for path in sorted(folder.glob("*.dups")):
        given = map_rows(path, np.dtype("<u4"), 4)
        own = tables.offsets[given[:, [0, 2]]] + given[:, [1, 3]]
        pairs.append(np.unique(np.sort(own, axis=1), axis=0))
    return np.unique(np.concatenate(pairs), axis=0)


def components(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The documents met in pairs, in order, and for each the number of its connected component."""
    members, places = np.unique(pairs, return_inverse=True)
    if not len(members):
        return members, np.empty(0, np.int64)
    first, second = places.reshape(-1, 2).T
    links = coo_array((np.ones(len(first), bool), (first, second)), (len(members), len(members)))
    return members, connected_components(links, directed=False)[1].astype(np.int64)


def split(rows: np.ndarray, forms: np.ndarray, config: NearDuplicateConfig) -> Iterator[Cluster]:
    """Clusters of a connected component: each document kept, with those that go in its favour.

    Args:
        rows, forms: as for `like_the_first`, the document most worth keeping first.
    """
    left = np.arange(len(rows))
    while len(left):
        near, shingles = like_the_first(rows[left], forms[left], config)
        if near.any():
            yield Cluster(int(left[0]), left[1:][near], shingles[near])
        left = left[1:][~near]


def _blocks(labels: np.ndarray) -> Iterator[np.ndarray]:
    """Places of whole components, about `_MEMBERS_AT_ONCE` at a time; in each the given order."""
    order = np.argsort(labels, kind="stable")
    edges = np.flatnonzero(np.diff(labels[order], append=-1)) + 1
    start = 0
    while start < len(order):
        end = edges[min(np.searchsorted(edges, start + _MEMBERS_AT_ONCE), len(edges) - 1)]
        yield order[start:end]
        start = end


def _components_of(labels: np.ndarray) -> list[np.ndarray]:
    return np.split(np.arange(len(labels)), np.flatnonzero(np.diff(labels)) + 1)


def _removals(tables: Tables, members: np.ndarray, clusters: list[Cluster]) -> Removals:
    kept = members[[cluster.kept for cluster in clusters]]
    names = [f"{source} {id}" for source, id in tables.names(kept)]
    return Removals(
        documents=np.concatenate([_NOTHING, *(members[c.dropped] for c in clusters)]),
        details=[
            f"{name}, similarity {value:.2f}"
            for name, cluster in zip(names, clusters, strict=True)
            for value in cluster.similarity
        ],
        clusters=np.repeat(np.arange(len(clusters)), [len(c.dropped) for c in clusters]),
        kept=kept,
    )


def _summary(clusters: list[Cluster]) -> dict[str, Any]:
    """Counts for the report, and which clusters to show: the largest ones and some others."""
    sizes = [len(cluster.dropped) + 1 for cluster in clusters]
    largest = sorted(range(len(sizes)), key=lambda number: (-sizes[number], number))
    spread = range(0, len(sizes), max(1, 2 * len(sizes) // SHOWN_CLUSTERS))
    return {
        "clusters": len(clusters),
        "sizes": dict(sorted(Counter(sizes).items())),
        "shown": sorted({*largest[: SHOWN_CLUSTERS // 2], *spread}),
    }
