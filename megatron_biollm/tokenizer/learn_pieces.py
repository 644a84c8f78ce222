"""Continues byte-pair encoding from the segmentation of a trained tokenizer.

The text is cut by the base tokenizer; then the most frequent pair of neighbours becomes a new
piece, again and again, as in Sennrich et al. 2016 (https://aclanthology.org/P16-1162, algorithm
1). A new piece is merged after everything the base merges, so no text gets longer.

`tokenizers`' and SentencePiece's trainers start from characters and cannot continue, so this is
our own: counts are kept per pair and changed only where a new piece occurs.
"""

from __future__ import annotations

import heapq
import itertools
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from megatron_biollm.config import UserError
from megatron_biollm.log import Progress
from megatron_biollm.tokenizer.mergeable import MergeableVocabulary, join

_CHUNKS_AT_A_TIME = 10_000
_ENDS_OF_PHRASES = '.,;:?!)]}"\u201d\u00bb'
# What is longer is no word but a sequence of bases or a line of dots, and merging it is slow.
_LONGEST_CHUNK = 500
_LONGEST_RUN = 50


@dataclass(frozen=True)
class PieceRules:
    """What may become a piece.

    max_length: characters, the space before a word counted (LLaMA-2's own pieces: 16).
    min_frequency: tokens a piece must save in the learning text.
    join_punctuation: also letters beside what ends a phrase ("patients.", "IL)"). That saves more
        tokens, but a word before a comma is then not the piece that it is elsewhere. "(p", "mg/kg"
        and "-induced" are pieces in any case.

    Pieces never hold white space inside, and digits only where the base's own do.
    """

    max_length: int = 16
    min_frequency: int = 10
    join_punctuation: bool = False

    def __post_init__(self) -> None:
        if self.max_length < 2 or self.min_frequency < 1:
            raise UserError(
                f"pieces of at most {self.max_length} characters that save {self.min_frequency} "
                "tokens cannot be learnt; give a length of 2 and a frequency of 1 or more"
            )

    def allow(self, text: str, digits: bool) -> bool:
        """Whether `text` (a space before it where it begins a word) may be a piece.

        digits: whether digits may stand beside other characters.
        """
        body = text.removeprefix(" ")
        if not body or len(text) > self.max_length:
            return False
        kinds = [unicodedata.category(c)[0] for c in body]
        if "Z" in kinds or "C" in kinds or (not digits and any(map(str.isdecimal, body))):
            return False
        ends_phrase = any(c in _ENDS_OF_PHRASES for c in body)
        return self.join_punctuation or not (ends_phrase and any(kind in "LM" for kind in kinds))


@dataclass(frozen=True)
class LearnedPiece:
    """A new piece; frequency: tokens it saved in the learning text at the time it was chosen."""

    piece: str
    frequency: int


class ChunkCounter:
    """Counts what stands between spaces; memory grows with the different chunks only."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.documents = 0
        self.characters = 0

    def add(self, text: str) -> None:
        """A line end stays with the chunk it precedes, which then stands behind no space."""
        chunks = text.replace("\n", " \n").split(" ")
        if max(map(len, chunks)) > _LONGEST_CHUNK:
            chunks = [chunk for chunk in chunks if len(chunk) <= _LONGEST_CHUNK]
        self.counts.update(chunks)
        self.documents += 1
        self.characters += len(text)

    def runs(self, vocabulary: MergeableVocabulary) -> Counter[tuple[str, ...]]:
        """How often each run of the vocabulary's pieces occurs, where something can be merged."""
        runs: Counter[tuple[str, ...]] = Counter()
        chunks = [chunk for chunk in self.counts if chunk]
        chunks = Progress(len(chunks), "segmenting", unit="words").track(chunks)
        while batch := list(itertools.islice(chunks, _CHUNKS_AT_A_TIME)):
            for chunk, found in zip(batch, vocabulary.runs(batch), strict=True):
                for run in found:
                    whole = len(run) == 1 and run[0] in vocabulary.pieces
                    if not whole and len(run) <= _LONGEST_RUN:
                        runs[tuple(run)] += self.counts[chunk]
        return runs


def learn_pieces(
    vocabulary: MergeableVocabulary,
    runs: Mapping[tuple[str, ...], int],
    count: int,
    rules: PieceRules,
) -> list[LearnedPiece]:
    """The next `count` pieces, in the order their ids must have.

    The same runs give the same pieces; of equally frequent ones the first by code points.

    Raises:
        UserError: fewer than `count` follow the rules.
    """
    learner = _Learner(vocabulary, runs, rules)
    progress = Progress(count, "merging", unit="pieces")
    pieces = list(progress.track(itertools.islice(learner, count)))
    if len(pieces) < count:
        raise UserError(
            f"the text holds {len(pieces)} new pieces that save {rules.min_frequency} tokens or "
            f"more, and exactly {count} are to be added; give more text, ask for fewer pieces, or "
            "lower the minimum frequency"
        )
    return pieces


class _Learner:
    """Runs as they are now, and for every possible next piece where it would go."""

    def __init__(
        self,
        vocabulary: MergeableVocabulary,
        runs: Mapping[tuple[str, ...], int],
        rules: PieceRules,
    ):
        self.vocabulary, self.rules = vocabulary, rules
        self.runs = [list(run) for run in runs]
        self.counts = list(runs.values())
        self.new: dict[str, float] = {}
        self.saved: Counter[str] = Counter()
        self.places: defaultdict[str, set[int]] = defaultdict(set)
        self.allowed: dict[str, bool] = {}
        touched = set().union(*map(self._count, range(len(self.runs))))
        self.heap = [(-self.saved[piece], piece) for piece in touched]
        heapq.heapify(self.heap)

    def __iter__(self) -> Iterator[LearnedPiece]:
        while (piece := self._most_frequent()) is not None:
            yield LearnedPiece(piece, self.saved[piece])
            self._add(piece)

    def _most_frequent(self) -> str | None:
        while self.heap:
            count, piece = heapq.heappop(self.heap)
            if piece in self.new or -count < self.rules.min_frequency:
                continue
            if -count != self.saved[piece]:
                heapq.heappush(self.heap, (-self.saved[piece], piece))
            elif self._is_found_alone(piece):
                return piece
        return None

    def _add(self, piece: str) -> None:
        self.new[piece] = self.vocabulary.next_rank + len(self.new)
        touched: set[str] = set()
        for at in list(self.places[piece]):
            self._count(at, -1)
            self.runs[at] = join(self.runs[at], self._rank)
            touched |= self._count(at)
        for other in touched:
            heapq.heappush(self.heap, (-self.saved[other], other))

    def _rank(self, left: str, right: str) -> float | None:
        own = self.vocabulary.rank(left, right)
        return self.new.get(left + right) if own is None else own

    def _count(self, at: int, sign: int = 1) -> set[str]:
        """Adds a run to the counts, or takes it out of them."""
        found = set()
        for piece, saves in self._candidates(self.runs[at]):
            found.add(piece)
            self.saved[piece] += sign * saves * self.counts[at]
        for piece in found:
            (self.places[piece].add if sign > 0 else self.places[piece].discard)(at)
        return found

    def _candidates(self, run: list[str]) -> Iterator[tuple[str, int]]:
        """Pieces that would shorten the run, and by how many tokens each time they occur."""
        known = [symbol in self.vocabulary.pieces or symbol in self.new for symbol in run]
        for symbol, is_known in zip(run, known, strict=True):
            if not is_known and self._allow(symbol):
                yield symbol, len(symbol.encode()) - 1
        for i in range(len(run) - 1):
            if known[i] and known[i + 1] and self._allow(piece := run[i] + run[i + 1]):
                yield piece, 1

    def _allow(self, piece: str) -> bool:
        if piece not in self.allowed:
            text = self.vocabulary.text(piece)
            self.allowed[piece] = piece not in self.vocabulary.pieces and self.rules.allow(
                text, self.vocabulary.joins_digits
            )
        return self.allowed[piece]

    def _is_found_alone(self, piece: str) -> bool:
        """Whether a text of this piece only would be one token, in both libraries.

        It is not where letters that follow it in words led the base to other pieces, or where it
        is a string thrice or more: then no order of merges can do what SentencePiece does
        (`splits` in hf_files.py).
        """
        period = (piece + piece).index(piece, 1)
        parts = join(list(piece), self._rank)
        is_merge = len(parts) == 2 or len(piece) == 1
        return is_merge and len(piece) < 3 * period and self.vocabulary.is_one_word(piece)
