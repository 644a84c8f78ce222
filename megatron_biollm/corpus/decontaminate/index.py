"""An index of benchmark items by runs of their words, and the search for them in a text.

Each item is laid out in *seeds*, runs of words that do not overlap. With one word changed at least
one seed is left (pigeonhole), and an item is compared word by word only where a seed of it is met.
Seeds are 4, 6 or 8 words long, so a text is hashed three times whatever the number of items.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from math import ceil
from pathlib import Path

import numpy as np

from megatron_biollm.atomic import whole_file
from megatron_biollm.corpus.decontaminate.items import Item
from megatron_biollm.corpus.dedup.shingles import hash_words, ngrams

SEED_WORDS = (4, 6, 8)

# Shorter ones are found in ordinary text by chance even word for word.
FEWEST_WORDS = 5

# Ordinary sentences of fewer words than this are like those of a benchmark by chance (the bound of
# Brown et al. 2020, appendix C). Below it a passage counts only word for word, a question with no
# more than one word changed, and a question that several items share only with its options.
LONG = 13

_FILTER_BITS = 23

# A text is searched in pieces, so that a huge one takes no more memory than others.
_BLOCK_WORDS = 1 << 16

# Where an item's words are found moved by no more than this, it is one and the same place.
_NEAR_WORDS = 8


@dataclass(frozen=True)
class Overlap:
    """Where a text holds an item: words `start` to `end` of the text, and how much of the item."""

    item: str
    coverage: float
    start: int
    end: int


@dataclass(frozen=True)
class ItemIndex:
    """Items as word hashes and their seeds, all in arrays.

    names: one per item. words: uint64, all items' words; item i has `words[offsets[i]:
    offsets[i + 1]]`. least: int32, how many of an item's words must be found. spoken: int32, for
    each word of an item in which only one may differ the word it is part of to a reader, who takes
    "TNF-alpha's" for one and not for three; -1 in all other items. seeds: uint64,
    sorted, each once; seed s belongs to the items `seed_items[seed_edges[s]:seed_edges[s + 1]]` and
    begins at words `seed_places` of them. skipped: items too short to be looked for.
    """

    names: np.ndarray
    words: np.ndarray
    offsets: np.ndarray
    least: np.ndarray
    spoken: np.ndarray
    seeds: np.ndarray
    seed_edges: np.ndarray
    seed_items: np.ndarray
    seed_places: np.ndarray
    skipped: np.ndarray

    @classmethod
    def build(cls, items: Iterable[Item], coverage: float, min_words: int) -> ItemIndex:
        """Lays out every item once; what is too short even with its options is skipped."""
        texts, skipped = _texts_to_find(list(items), min_words)
        hashed = hash_words([text.words for text in texts])
        lengths = np.diff(hashed.offsets)
        least = np.array([t.least(n, coverage) for t, n in zip(texts, lengths, strict=True)], int)
        seeds, owners, places = _lay_out(hashed.hashes, hashed.offsets, least == lengths)
        order = np.argsort(seeds, kind="stable")
        seeds, first = np.unique(seeds[order], return_index=True)
        return cls(
            names=np.array([text.name for text in texts], dtype=np.str_),
            words=hashed.hashes,
            offsets=hashed.offsets,
            least=least.astype(np.int32),
            spoken=_spoken_words(texts, hashed.offsets),
            seeds=seeds,
            seed_edges=np.append(first, len(order)),
            seed_items=owners[order],
            seed_places=places[order],
            skipped=np.array(skipped, dtype=np.str_),
        )

    def save(self, path: Path) -> None:
        """Writes the index to one file, complete or not at all."""
        with whole_file(path) as file:
            np.savez(file, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> ItemIndex:
        with np.load(path) as stored:
            return cls(**{field.name: stored[field.name] for field in fields(cls)})


class ItemFinder:
    """Finds items of an index in texts. Its own memory: 8 MiB."""

    def __init__(self, index: ItemIndex):
        self.index = index
        self.longest = int(np.diff(index.offsets).max(initial=0))
        self.filter = np.zeros(1 << _FILTER_BITS, bool)
        self.filter[_filter_place(index.seeds)] = True

    def find(self, words: np.ndarray) -> list[Overlap]:
        """Overlaps of a text, the best one of each item, in order of place.

        words: hashes of the text's words, from `hash_words`.
        """
        best: dict[str, Overlap] = {}
        for begin in range(0, len(words), _BLOCK_WORDS):
            # Blocks share as much as an item may be long, so that none is cut in two.
            for found in self._in_block(words[begin : begin + _BLOCK_WORDS + 2 * self.longest]):
                known = best.get(found.item)
                if known is None or found.coverage > known.coverage:
                    best[found.item] = replace(
                        found, start=found.start + begin, end=found.end + begin
                    )
        return sorted(best.values(), key=lambda overlap: (overlap.start, -overlap.coverage))

    def _in_block(self, words: np.ndarray) -> Iterator[Overlap]:
        items, shifts = self._candidates(words)
        if not len(items):
            return
        held, edges = self._compare(words, items, shifts)
        groups = np.flatnonzero(
            np.concatenate([[True], (np.diff(items) != 0) | (np.diff(shifts) > _NEAR_WORDS)])
        )
        counts = np.add.reduceat(np.add.reduceat(held, edges[:-1], dtype=np.int64), groups)
        ends = np.append(groups[1:], len(items))
        # What one place may hold at most; few candidates are left to look at one by one.
        for group in np.flatnonzero(counts >= self.index.least[items[groups]]):
            places = range(groups[group], ends[group])
            item, near = items[groups[group]], shifts[groups[group] : ends[group]]
            found = np.logical_or.reduce([held[edges[p] : edges[p + 1]] for p in places])
            if self._is_enough(item, found):
                inside = np.flatnonzero(found)
                yield Overlap(
                    item=str(self.index.names[item]),
                    coverage=float(found.mean()),
                    start=max(int(near.min() + inside[0]), 0),
                    end=min(int(near.max() + inside[-1] + 1), len(words)),
                )

    def _is_enough(self, item: int, found: np.ndarray) -> bool:
        start, end = self.index.offsets[item : item + 2]
        missing = self.index.spoken[start:end][~found]
        if len(missing) and missing[0] >= 0 and len(np.unique(missing)) > 1:
            return False
        return bool(found.sum() >= self.index.least[item])

    def _candidates(self, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Items with a seed in the text, and where in the text they would begin; sorted, unique."""
        index = self.index
        runs = [ngrams(words, length) for length in SEED_WORDS]
        places = np.concatenate([np.arange(len(part)) for part in runs])
        hashes = np.concatenate(runs)
        passed = np.flatnonzero(self.filter[_filter_place(hashes)])
        hashes, places = hashes[passed], places[passed]
        seed = np.minimum(np.searchsorted(index.seeds, hashes), len(index.seeds) - 1)
        known = np.flatnonzero(index.seeds[seed] == hashes)
        seed, places = seed[known], places[known]
        first = index.seed_edges[seed]
        counts = index.seed_edges[seed + 1] - first
        entry = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        items, shifts = index.seed_items[entry], np.repeat(places, counts)
        shifts -= index.seed_places[entry]
        # One number for both, so that sorting is fast; shifts may be below 0.
        both = np.unique(items << np.int64(32) | shifts + (1 << 31))
        return both >> np.int64(32), (both & 0xFFFFFFFF) - (1 << 31)

    def _compare(
        self, words: np.ndarray, items: np.ndarray, shifts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which words of each candidate item the text has where they are expected.

        A word left out or put in ("cell-free" are two) moves the rest: two words in a row that are
        found up to two places off count as well.

        Returns:
            bool, the words of all candidates one after another, and the edges between these.
        """
        lengths = np.diff(self.index.offsets)[items]
        edges = np.concatenate([[0], np.cumsum(lengths)])
        within = np.arange(edges[-1]) - np.repeat(edges[:-1], lengths)
        wanted = self.index.words[within + np.repeat(self.index.offsets[items], lengths)]
        place = within + np.repeat(shifts, lengths)
        held = _equal(wanted, words, place)
        for moved in (-2, -1, 1, 2):
            same = _equal(wanted, words, place + moved)
            pair = same[:-1] & same[1:] & (within[1:] > 0)
            held[:-1] |= pair
            held[1:] |= pair
            # The first word has no other before it, the last none after it.
            for ends in (edges[:-1], edges[1:] - 1):
                held[ends] |= same[ends]
        return held, edges


def _equal(wanted: np.ndarray, words: np.ndarray, place: np.ndarray) -> np.ndarray:
    inside = (place >= 0) & (place < len(words))
    return inside & (words[np.where(inside, place, 0)] == wanted)


def _filter_place(hashes: np.ndarray) -> np.ndarray:
    return hashes >> np.uint64(64 - _FILTER_BITS)


@dataclass(frozen=True)
class _Text:
    """What identifies an item; with fewer words than `exact_below` only word for word."""

    name: str
    words: str
    exact_below: int

    def least(self, count: int, coverage: float) -> int:
        """How many of the text's `count` words must be found."""
        if count < self.exact_below:
            return count
        # Of a short one all but one word, whatever its parts; see `ItemIndex.spoken`.
        return ceil((coverage if count >= LONG else 0.5) * count - 1e-9)

    def one_word_may_differ(self, count: int) -> bool:
        return self.exact_below <= count < LONG


def _texts_to_find(items: Sequence[Item], min_words: int) -> tuple[list[_Text], list[str]]:
    """One or several texts for each item, and the names of those that nothing identifies."""
    counts = np.diff(hash_words([item.text for item in items]).offsets)
    shared = _shared_questions(items)
    texts: list[_Text] = []
    for item, count in zip(items, counts, strict=True):
        is_shared = count < LONG and _plain(item.text) in shared
        if not is_shared:
            exact_below = max(min_words, LONG) if item.passage else min_words
            texts.append(_Text(item.name, item.text, exact_below))
        if item.options and (count < min_words or is_shared):
            texts += [_Text(item.name, words, min_words) for words in _with_options(item)]
    counts = np.diff(hash_words([text.words for text in texts]).offsets)
    found: dict[str, _Text] = {}
    for text, count in zip(texts, counts, strict=True):
        if count >= (FEWEST_WORDS if text.exact_below == min_words else min_words):
            found.setdefault(_plain(text.words), text)
    known = {text.name for text in found.values()}
    lost = [t.name for t in texts if t.name not in known and _plain(t.words) not in found]
    return list(found.values()), list(dict.fromkeys(lost))


def _spoken_words(texts: Sequence[_Text], offsets: np.ndarray) -> np.ndarray:
    spoken = np.full(offsets[-1], -1, np.int32)
    for text, start, end in zip(texts, offsets, offsets[1:], strict=False):
        if text.one_word_may_differ(end - start):
            parts = np.diff(hash_words(text.words.split()).offsets)
            spoken[start:end] = np.repeat(np.arange(len(parts)), parts)[: end - start]
    return spoken


def _with_options(item: Item) -> list[str]:
    """The question and its options, with and without letters before them."""
    lettered = (f"{chr(ord('A') + n)} {option}" for n, option in enumerate(item.options))
    return [" ".join([item.text, *options]) for options in (item.options, lettered)]


def _shared_questions(items: Sequence[Item]) -> set[str]:
    """Questions asked more than once, with nothing in common among their options."""
    options: dict[str, set[str]] = {}
    shared = set()
    for item in items:
        question, own = _plain(item.text), {_plain(option) for option in item.options}
        if own and own.isdisjoint(options.get(question, own)):
            shared.add(question)
        options.setdefault(question, set()).update(own)
    return shared


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _lay_out(
    words: np.ndarray, offsets: np.ndarray, exact: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hash, item and place of every seed."""
    seeds, owners, places = [], [], []
    runs = {length: ngrams(words, length) for length in SEED_WORDS}
    for item, (start, end) in enumerate(pairwise(offsets.tolist())):
        for place, length in _seed_places(end - start, exact[item]):
            seeds.append(runs[length][start + place])
            owners.append(item)
            places.append(place)
    return np.array(seeds, np.uint64), np.array(owners, np.int64), np.array(places, np.int64)


def _seed_places(words: int, exact: bool) -> list[tuple[int, int]]:
    """(place, length) of the seeds of an item: side by side, the last one at its end.

    What counts only word for word has one seed, the longest.
    """
    times = 1 if exact else 2
    length = max(seed for seed in SEED_WORDS if seed == SEED_WORDS[0] or times * seed <= words)
    if exact:
        return [(0, length)]
    return [(place, length) for place in (*range(0, words - length, length), words - length)]
