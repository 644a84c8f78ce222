"""Removal of records that claims have beaten: old versions, withdrawn ones, copies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document as DatatroveDocument
from datatrove.pipeline.base import PipelineStep

from megatron_biollm.corpus.claims import REASONS, losses_of, read_claims, resolve, save
from megatron_biollm.corpus.steps import Drop, Flow, from_datatrove


class ResolveClaims(PipelineStep):
    """Settles one bucket of claims: task N reads bucket N of all shards.

    claims: folder of the claims. losses: folder to write, one file a bucket. before: folders of
    losses settled earlier; documents that are in them claim nothing any more.
    """

    type, name = "corpus", "resolve claims"

    def __init__(self, claims: Path, losses: Path, before: Sequence[Path] = ()):
        super().__init__()
        self.claims, self.losses, self.before = claims, losses, before

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator:
        claims = read_claims(self.claims, rank)
        for folder in self.before:
            for file in sorted(folder.glob("*.npy")):
                lost = _places(np.load(file, mmap_mode="r"))
                claims = claims[~np.isin(_places(claims), lost)]
        save(self.losses / f"{rank:04d}.npy", resolve(claims))
        yield from ()


class RemoveLosers(PipelineStep):
    """Drops the documents of the task's shard that lost a claim; `flow` counts them by reason."""

    type, name = "corpus", "identity"

    def __init__(self, losses: Sequence[Path]):
        super().__init__()
        self.losses = losses
        self.flow = Flow(self.name)

    def run(
        self, data: Iterable[DatatroveDocument], rank: int = 0, world_size: int = 1
    ) -> Iterator[DatatroveDocument]:
        self.flow = Flow(self.name)
        lost: dict[int, Any] = {}
        for folder in reversed(self.losses):
            lost |= losses_of(folder, rank)
        for number, given in enumerate(data):
            document = from_datatrove(given)
            self.flow.came[document.source] += 1
            loss = lost.get(number)
            if loss is None:
                self.flow.keep(document)
                yield given
                continue
            winner = f"document {loss['winner_document']} of shard {loss['winner_shard']}"
            self.flow.drop(document, Drop(REASONS[int(loss["reason"])], f"for {winner}"))


def _places(records: np.ndarray) -> np.ndarray:
    """Shard and document as one number."""
    return records["shard"].astype(np.uint64) << np.uint64(32) | records["document"]
