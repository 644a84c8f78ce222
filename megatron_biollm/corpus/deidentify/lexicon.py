"""Words that are names, words that are not, and words that may be either.

The lists lie beside this file (`data/README.md` says where each comes from); first and last names
come from the package faker, which carries those of some 80 countries, offline.
"""

from __future__ import annotations

import gzip
import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files

import faker.providers.person as faker_person

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
# Provider modules of these countries hold the names that notes of the United States hold most.
_ENGLISH = ("en_US", "en_GB", "en_CA", "en_AU", "en_IE", "en", "es_MX", "es", "en_IN", "en_NZ")


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
        """Reads the lists; about half a second and 60 MB."""
        names = _names()
        return cls(
            words=frozenset(_lines("words.txt.gz")),
            acronyms=frozenset(_lines("acronyms.txt.gz")),
            safe=frozenset(w.lower() for line in _lines("proper_terms.txt") for w in line.split()),
            ambiguous=frozenset(
                w.lower() for line in _lines("ambiguous_names.txt") for w in line.split()
            ),
            places=_by_first_word(_lines("places.txt.gz")),
            permitted=frozenset(line.lower() for line in _lines("permitted_places.txt")),
            **names,
        )

    def is_name(self, word: str) -> bool:
        """In a list of first or last names, whatever else it may be. `word` in lower case."""
        return word in self.first or word in self.last

    def is_safe(self, word: str) -> bool:
        """A term that is no identifier even with a capital. `word` in lower case."""
        if word not in self.safe:
            return False
        return word not in self.common_last or word in _LONE_EPONYMS


def _lines(name: str) -> Iterator[str]:
    raw = files("megatron_biollm.corpus.deidentify").joinpath("data", name).read_bytes()
    text = (gzip.decompress(raw) if name.endswith(".gz") else raw).decode("utf-8")
    return (line for line in text.splitlines() if line and not line.startswith("#"))


def _by_first_word(places: Iterable[str]) -> dict[str, frozenset[tuple[str, ...]]]:
    """First word, in lower case, to the places that begin with it."""
    index: dict[str, set[tuple[str, ...]]] = {}
    for place in places:
        words = tuple(place.lower().split())
        index.setdefault(words[0], set()).add(words)
    return {word: frozenset(found) for word, found in index.items()}


def _names() -> dict[str, frozenset[str]]:
    sets: dict[str, set[str]] = {
        key: set() for key in ("first", "female", "male", "last", "common_first", "common_last")
    }
    for module in pkgutil.iter_modules(faker_person.__path__):
        provider = importlib.import_module(f"{faker_person.__name__}.{module.name}").Provider
        _add_names(sets, provider, module.name)
    return {key: frozenset(found) for key, found in sets.items()}


def _add_names(sets: dict[str, set[str]], provider: type, country: str) -> None:
    for attribute in dir(provider):
        part = "first" if attribute.startswith("first_name") else "last"
        if not attribute.startswith(("first_name", "last_name")):
            continue
        words = _words(getattr(provider, attribute))
        sets[part] |= words
        if part == "first" and country in _ENGLISH:
            sets["common_first"] |= words
        if part == "last" and country == "en_US":
            sets["common_last"] |= words
        for gender in ("female", "male"):
            if attribute.endswith(f"_{gender}"):
                sets[gender] |= words


def _words(names: object) -> set[str]:
    """The single words, in lower case, of a list of names as faker's providers hold it."""
    if not isinstance(names, list | tuple | dict):
        return set()
    return {
        word.lower()
        for name in names
        if isinstance(name, str)
        for word in name.replace("-", " ").split()
        if len(word) > 1 and word[0].isalpha()
    }
