"""Runs of the deduplication stages, from shards of documents to the documents that are kept."""

from __future__ import annotations

from megatron_biollm.corpus.dedup.buckets import Buckets
from megatron_biollm.corpus.dedup.cluster import Clusters, near_duplicate_filter
from megatron_biollm.corpus.dedup.config import ContainmentConfig, NearDuplicateConfig
from megatron_biollm.corpus.dedup.containment import Contained, Shares, contained_filter
from megatron_biollm.corpus.dedup.signatures import Signatures
from megatron_biollm.corpus.dedup.sketches import SharedShingles, Sketches
from tests.corpus.made_texts import run_step


def find_near_duplicates(shards, folder, config=None, workers=1):
    """Stages 1 to 3 of near-duplicate removal; `workers` tasks share a bucket."""
    config = config or NearDuplicateConfig()
    for rank, shard in enumerate(shards):
        run_step(Signatures(config, folder), shard, rank, len(shards))
    tasks = config.num_buckets * workers
    for rank in range(tasks):
        run_step(Buckets(config, folder), None, rank, tasks)
    run_step(Clusters(config, folder), None, 0, 1)


def without_near_duplicates(shards, folder, config=None, workers=1):
    """Identifiers of the documents that stay."""
    find_near_duplicates(shards, folder, config, workers)
    return {
        left.id
        for rank, shard in enumerate(shards)
        for left in run_step(near_duplicate_filter(folder), shard, rank, len(shards))
    }


def find_contained(shards, folder, config=None, tasks=3):
    """Stages 1 to 4 of the search for contained documents."""
    config = config or ContainmentConfig()
    for rank, shard in enumerate(shards):
        run_step(Sketches(config, folder), shard, rank, len(shards))
    for rank in range(tasks):
        run_step(SharedShingles(config, folder), None, rank, tasks)
    for rank in range(len(shards)):
        run_step(Shares(config, folder), None, rank, len(shards))
    run_step(Contained(config, folder), None, 0, 1)


def without_contained(shards, folder, config=None, tasks=3):
    """Identifiers of the documents that stay."""
    find_contained(shards, folder, config, tasks)
    return {
        left.id
        for rank, shard in enumerate(shards)
        for left in run_step(contained_filter(folder), shard, rank, len(shards))
    }
