"""Documents in handfuls, and their words, for work that is done on arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from datatrove.data import Document as DatatroveDocument

from megatron_biollm.corpus.dedup.shingles import Words, hash_words
from megatron_biollm.corpus.document import Document

BATCH_CHARACTERS = 1 << 18

# What is longer is judged by its beginning, or one document could take all memory.
LONGEST_CHARACTERS = 1 << 22


def batched(documents: Iterable[DatatroveDocument]) -> Iterator[list[DatatroveDocument]]:
    """Lists of documents with about `BATCH_CHARACTERS` of text in each; none is empty."""
    batch, characters = [], 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def words_of(documents: Sequence[Document]) -> Words:
    """The words of the first `LONGEST_CHARACTERS` of each document."""
    return hash_words([document.text[:LONGEST_CHARACTERS] for document in documents])
