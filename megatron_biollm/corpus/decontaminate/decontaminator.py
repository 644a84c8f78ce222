"""The curation step that keeps benchmark items out of the corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import xxhash

from megatron_biollm.config import UserError
from megatron_biollm.corpus.decontaminate.config import DecontaminateConfig
from megatron_biollm.corpus.decontaminate.index import ItemFinder, ItemIndex, Overlap
from megatron_biollm.corpus.decontaminate.items import read_items
from megatron_biollm.corpus.dedup.shingles import fold, hash_words
from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.steps import Drop

# Part of a cached index's name; to be raised when the layout or the reading of items changes.
_INDEX_VERSION = 1

# A huge text is searched in pieces, so that it takes no more memory than others.
_PIECE_CHARACTERS = 1 << 22

# More than any item takes, white space included.
_CHARACTERS_PER_WORD = 30


@dataclass(frozen=True)
class Match:
    """A benchmark item found in a text: characters `start` to `end`, and how much of the item."""

    item: str
    coverage: float
    start: int
    end: int


class Decontaminator:
    """Drops documents that hold a benchmark item; from long ones the passage is cut out."""

    name = "decontaminate"

    def __init__(self, config: DecontaminateConfig):
        """Builds the index, or finds it in `config.cache`.

        Raises:
            UserError: a benchmark that does not exist, cannot be read or has no items.
        """
        self.config = config
        self.tally: Counter[str] = Counter()
        self.index = load_index(config)
        self._prepare()

    def _prepare(self) -> None:
        self.finder = ItemFinder(self.index)
        self.shared_characters = _CHARACTERS_PER_WORD * self.finder.longest

    def __getstate__(self) -> dict:
        # A worker loads the index from the cache rather than being sent a copy with every task.
        kept = {"config": self.config, "tally": self.tally}
        return kept if self.config.cache else {**kept, "index": self.index}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if "index" not in state:
            self.index = load_index(self.config)
        self._prepare()

    def __call__(self, document: Document) -> Document | Drop:
        words, found = self._search(document.text)
        if not found:
            return document
        for match in found:
            self.tally[f"met {match.item.rsplit('#', 1)[0]}"] += 1
        best = max(found, key=lambda match: match.coverage)
        what = f"{best.item} coverage {best.coverage:.2f}"
        if words <= self.config.cut_above_words:
            return Drop("benchmark", what)
        self.tally["passages_cut"] += len(found)
        edited = document.edit(_merged(found))
        return edited if edited.text.strip() else Drop("benchmark", f"{what}, nothing is left")

    def overlap(self, text: str) -> list[Match]:
        """Every item found in a text, at the place that holds most of it, in order of place."""
        return self._search(text)[1]

    def _search(self, text: str) -> tuple[int, list[Match]]:
        """The number of words of a text, and what is found in it."""
        count, best = 0, {}
        for begin in range(0, max(len(text), 1), _PIECE_CHARACTERS):
            # Pieces share more than the longest item, so that none is cut in two.
            piece = text[begin : begin + _PIECE_CHARACTERS + self.shared_characters]
            words = hash_words([piece])
            count += len(words.hashes)
            for match in _matches(piece, words.starts, self.finder.find(words.hashes)):
                if match.item not in best or match.coverage > best[match.item].coverage:
                    moved = replace(match, start=match.start + begin, end=match.end + begin)
                    best[match.item] = moved
        return count, sorted(best.values(), key=lambda match: (match.start, -match.coverage))


def load_index(config: DecontaminateConfig) -> ItemIndex:
    """The index of the benchmarks, from the cache if their files and the settings are the same."""
    if not config.benchmarks:
        raise UserError(
            "decontaminate.benchmarks is empty; give the files to keep out of the corpus, or leave "
            "out this stage"
        )
    if config.cache is None:
        return _build(config)
    path = Path(config.cache) / f"benchmarks-{fingerprint(config)}.npz"
    if not path.exists():
        _build(config).save(path)
    return ItemIndex.load(path)


def _build(config: DecontaminateConfig) -> ItemIndex:
    items = read_items(config.benchmarks, config.contexts)
    return ItemIndex.build(items, config.coverage, config.min_words)


def fingerprint(config: DecontaminateConfig) -> str:
    """Changes with the content of every benchmark file and with the settings that matter."""
    settings = {**asdict(config), "cache": None, "cut_above_words": None}
    state = xxhash.xxh64(repr((_INDEX_VERSION, sorted(settings.items()))).encode())
    for path in map(Path, config.benchmarks):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                state.update(str(file).encode())
                state.update(xxhash.xxh64_digest(file.read_bytes()))
    return state.hexdigest()


def _matches(text: str, starts: np.ndarray, found: Sequence[Overlap]) -> list[Match]:
    """Words to characters: from the first word found to where the word after the last begins."""
    if not found:
        return []
    places = _characters(text, starts)
    return [Match(o.item, o.coverage, int(places[o.start]), int(places[o.end])) for o in found]


def _characters(text: str, starts: np.ndarray) -> np.ndarray:
    """Where in a text each of its words begins, given where in its folded bytes; then its end."""
    if text.isascii():
        return np.append(starts, len(text))
    widths = [len(fold(character).encode("utf-8", "surrogatepass")) for character in text]
    return np.append(np.searchsorted(np.cumsum([0, *widths]), starts, "right") - 1, len(text))


def _merged(matches: Sequence[Match]) -> list[tuple[int, int, str]]:
    """Edits that cut the matches out, overlapping ones as one."""
    edits: list[tuple[int, int, str]] = []
    for match in sorted(matches, key=lambda match: match.start):
        if edits and match.start <= edits[-1][1]:
            edits[-1] = (edits[-1][0], max(edits[-1][1], match.end), "")
        else:
            edits.append((match.start, match.end, ""))
    return edits
