"""Documents in handfuls, for work that is done on arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from datatrove.data import Document

BATCH_CHARACTERS = 1 << 18


def batched(documents: Iterable[Document]) -> Iterator[list[Document]]:
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
