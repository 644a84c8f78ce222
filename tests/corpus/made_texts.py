"""Texts for the deduplication tests: made of drawn words, and edited by known amounts."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from datatrove.pipeline.base import PipelineStep

from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.steps import from_datatrove, to_datatrove

_SYLLABLES = ["ba", "cor", "di", "fen", "gly", "ha", "ki", "lo", "mi", "ner", "pro", "sta", "tu"]


class Author:
    """Writes texts in which frequent words are frequent (Zipf), the same ones for one seed."""

    def __init__(self, seed: int = 0, vocabulary: int = 4000):
        self.random = random.Random(seed)
        self.words = [self._word() for _ in range(vocabulary)]
        self.weights = [1 / (rank + 3) for rank in range(vocabulary)]

    def _word(self) -> str:
        return "".join(self.random.choices(_SYLLABLES, k=self.random.randint(1, 4)))

    def text(self, words: int) -> str:
        return " ".join(self.random.choices(self.words, self.weights, k=words))

    def edited(self, text: str, share: float) -> str:
        """The text with this share of its words replaced, left out or added to."""
        words = text.split()
        for place in self.random.sample(range(len(words)), round(share * len(words))):
            other = self.random.choice(self.words)
            words[place] = self.random.choice([other, other, "", f"{words[place]} {other}"])
        return " ".join(word for word in words if word)


def document(id: str, text: str, source: str = "pubmed", **metadata) -> Document:
    return Document(text=text, id=id, source=source, metadata=metadata)


def run_step(step: PipelineStep, documents: Iterable[Document] | None, rank: int, tasks: int):
    """The documents that leave the step."""
    given = None if documents is None else (to_datatrove(document) for document in documents)
    return [from_datatrove(left) for left in step.run(given, rank, tasks) or ()]


def sharded(documents: Sequence[Document], shards: int) -> list[Sequence[Document]]:
    return [documents[shard::shards] for shard in range(shards)]
