"""What indexed corpora hold: lengths, token counts, ends of documents, documents as text.

Everything is read through memory maps in pieces, so memory does not grow with the corpus.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Optional

import numpy as np

from megatron_biollm.config import UserError
from megatron_biollm.data.layout import REMEDY, Layout, read_layout
from megatron_biollm.data.lengths import Lengths
from megatron_biollm.data.sidecar import read_sidecar
from megatron_biollm.tokenizer.manifest import TokenizerManifest
from megatron_biollm.tokenizer.tokenizer import Tokenizer

_CHUNK_IDS, _CHUNK_DOCUMENTS = 1 << 22, 1 << 17
# Far above any vocabulary; a damaged file may hold anything, and each id has a counter.
_LARGEST_ID = 1 << 24
# A document of the sample is decoded up to here; enough for its ratios, and a bound.
_SAMPLED_TOKENS = 100_000
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_UNKNOWN = {"<unk>", "[UNK]", "<|unk|>"}


@dataclass(frozen=True)
class Corpus:
    """Indexed files that are looked at as one. label: for people. layouts: in order."""

    label: str
    layouts: tuple[Layout, ...]

    @classmethod
    def open(cls, label: str, prefixes: list[str]) -> "Corpus":
        """Raises UserError where a file is missing or damaged, see `read_layout`."""
        return cls(label, tuple(read_layout(prefix) for prefix in prefixes))

    @property
    def documents(self) -> int:
        return sum(layout.documents for layout in self.layouts)

    @property
    def tokens(self) -> int:
        return sum(layout.tokens for layout in self.layouts)

    @cached_property
    def manifest(self) -> Optional[TokenizerManifest]:
        """The tokenizer that made it, as the sidecars say; None where none says it.

        Raises:
            UserError: the files were made with different tokenizers.
        """
        found: Optional[TokenizerManifest] = None
        for layout in self.layouts:
            told = (read_sidecar(layout.prefix) or {}).get("tokenizer")
            if told is None:
                continue
            manifest = TokenizerManifest.from_json(told)
            if found is not None:
                manifest.check_same(found, layout.prefix, self.layouts[0].prefix)
            found = manifest
        return found

    def ids_of(self, number: int) -> np.ndarray:
        """The ids of one document, numbered from 0 through all files.

        Raises:
            UserError: there is no such document.
        """
        place = number
        for layout in self.layouts:
            if 0 <= place < layout.documents:
                start, end = token_bounds(layout, place, place + 1)
                return layout.token_ids()[start:end]
            place -= layout.documents
        raise UserError(
            f"{self.label} has no document {number}: its {self.documents} documents are numbered "
            f"from 0 to {self.documents - 1}"
        )


@dataclass
class Survey:
    """One pass over a corpus.

    counts: by token id. lengths: of documents, in tokens, end-of-document tokens included.
    ended: documents that end with `eod`; None where the id is not known.
    """

    eod: Optional[int]
    counts: np.ndarray = field(default_factory=lambda: np.zeros(1 << 16, np.int64))
    lengths: Lengths = field(default_factory=Lengths)
    ended: int = 0

    @property
    def eod_summary(self) -> Optional[dict[str, int]]:
        """Documents that end with EOD, those that do not, and EODs elsewhere."""
        if self.eod is None:
            return None
        total = int(self.counts[self.eod]) if self.eod < len(self.counts) else 0
        filled = self.lengths.documents - self.lengths.empty
        not_ended, inside = filled - self.ended, total - self.ended
        return {"id": self.eod, "ended": self.ended, "not_ended": not_ended, "inside": inside}


def token_bounds(layout: Layout, first: int, last: int) -> np.ndarray:
    """Where documents `first` to `last` begin in PREFIX.bin, in tokens; the last one ends at
    `last`.

    Raises:
        UserError: a document ends before it begins.
    """
    sequences = np.asarray(layout.document_bounds()[first : last + 1])
    pointers, inside = layout.pointers(), sequences < layout.sequences
    bounds = np.full(len(sequences), layout.tokens, np.int64)
    bounds[inside] = np.asarray(pointers[sequences[inside]]) // layout.dtype.itemsize
    if (np.diff(bounds) < 0).any():
        raise UserError(
            f"{layout.prefix}.idx is damaged: among documents {first} to {last} one ends before it "
            f"begins; tools/verify_data.py names it: {REMEDY}"
        )
    return bounds


def survey(
    corpus: Corpus,
    eod: Optional[int] = None,
    on_tokens: Optional[Callable[[int], Any]] = None,
) -> Survey:
    """Reads all files once.

    eod: id that ends documents. on_tokens: told how many more tokens were read.
    """
    found = Survey(eod)
    for layout in corpus.layouts:
        for first in range(0, layout.documents, _CHUNK_DOCUMENTS):
            last = min(first + _CHUNK_DOCUMENTS, layout.documents)
            bounds = token_bounds(layout, first, last)
            found.lengths.add(np.diff(bounds))
            if eod is not None:
                ends = bounds[1:][np.diff(bounds) > 0] - 1
                found.ended += int((layout.token_ids()[ends] == eod).sum())
        # Mapped anew for each piece: pages that were read count as this process's memory.
        for start in range(0, layout.tokens, _CHUNK_IDS):
            piece = layout.token_ids()[start : start + _CHUNK_IDS]
            found.counts = _add(found.counts, _bincount(piece, layout))
            if on_tokens:
                on_tokens(len(piece))
    return found


def describe_ids(counts: np.ndarray, tokenizer: Optional[Tokenizer], top: int) -> dict[str, Any]:
    """The most frequent ids, how many different ones occur, and how many tokens spell bytes.

    Returns:
        different, top (id, piece, count, share), and with a tokenizer: byte_share (of tokens that
        stand for one byte because the text has no piece; None where it has no such tokens),
        unknown_share, unused (pieces that never occur).
    """
    total = int(counts.sum()) or 1
    pieces = tokenizer.pieces() if tokenizer else []
    order = np.argsort(-counts, kind="stable")[:top]
    found: dict[str, Any] = {
        "different": int((counts > 0).sum()),
        "top": [
            {
                "id": int(i),
                "piece": pieces[i] if i < len(pieces) else None,
                "count": int(counts[i]),
                "share": int(counts[i]) / total,
            }
            for i in order
            if counts[i]
        ],
    }
    if tokenizer is None:
        return found
    spelt = [i for i, piece in enumerate(pieces) if piece and _BYTE.fullmatch(piece)]
    unknown = [i for i, piece in enumerate(pieces) if piece in _UNKNOWN]
    counts = _add(np.zeros(len(pieces), np.int64), counts)
    return found | {
        "byte_share": int(counts[spelt].sum()) / total if spelt else None,
        "unknown_share": int(counts[unknown].sum()) / total,
        "unused": int((counts[: len(pieces)] == 0).sum()),
    }


def sample_numbers(documents: int, size: int, seed: int) -> list[int]:
    """Numbers of up to `size` documents, in order; the same for the same seed."""
    return sorted(random.Random(seed).sample(range(documents), min(size, documents)))


def decode(corpus: Corpus, tokenizer: Tokenizer, numbers: list[int]) -> Iterator[dict[str, Any]]:
    """Documents as text: document (its number), tokens, text."""
    for number in numbers:
        ids = corpus.ids_of(number)
        yield {"document": number, "tokens": len(ids), "text": tokenizer.decode(ids.tolist())}


def ratios(
    corpus: Corpus, tokenizer: Tokenizer, size: int = 200, seed: int = 0
) -> dict[str, float | int]:
    """How well the vocabulary fits, measured on a sample of documents.

    Returns:
        documents, tokens (without those that end documents), tokens_per_word (words are what
        white space separates), characters_per_token, bytes_per_token.
    """
    tokens = words = characters = size_in_bytes = 0
    numbers = sample_numbers(corpus.documents, size, seed)
    for number in numbers:
        ids = np.asarray(corpus.ids_of(number)[:_SAMPLED_TOKENS])
        text = tokenizer.decode(ids.tolist())
        tokens += int((ids != tokenizer.eod).sum())
        words += len(text.split())
        characters += len(text)
        size_in_bytes += len(text.encode("utf-8", "replace"))
    return {
        "documents": len(numbers),
        "tokens": tokens,
        "tokens_per_word": tokens / words if words else 0.0,
        "characters_per_token": characters / tokens if tokens else 0.0,
        "bytes_per_token": size_in_bytes / tokens if tokens else 0.0,
    }


def _bincount(ids: np.ndarray, layout: Layout) -> np.ndarray:
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high > _LARGEST_ID:
        raise UserError(
            f"{layout.prefix}.bin holds the token id {low if low < 0 else high}, and ids lie "
            f"between 0 and {_LARGEST_ID}: {REMEDY}"
        )
    return np.bincount(ids)


def _add(counts: np.ndarray, more: np.ndarray) -> np.ndarray:
    """The sum of two tables of counts, as long as the longer one."""
    if len(more) > len(counts):
        counts, more = more.copy(), counts
    counts[: len(more)] += more
    return counts
