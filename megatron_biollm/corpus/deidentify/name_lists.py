"""First and last names of some 80 countries, from the package faker, which carries them offline."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, fields
from functools import cache

import faker.providers.person as faker_person

# Provider modules of these countries hold the names that notes of the United States hold most.
_ENGLISH = ("en_US", "en_GB", "en_CA", "en_AU", "en_IE", "en", "es_MX", "es", "en_IN", "en_NZ")


@dataclass(frozen=True)
class NameLists:
    """Single words of names, in lower case; `common_first` those of English-speaking and
    Spanish-speaking countries, `common_last` frequent surnames of the United States."""

    first: frozenset[str]
    female: frozenset[str]
    male: frozenset[str]
    last: frozenset[str]
    common_first: frozenset[str]
    common_last: frozenset[str]

    def __contains__(self, word: str) -> bool:
        return word in self.first or word in self.last


@cache
def load_names() -> NameLists:
    """Reads the package's modules once in a process; 0.1 s."""
    sets: dict[str, set[str]] = {field.name: set() for field in fields(NameLists)}
    for module in pkgutil.iter_modules(faker_person.__path__):
        provider = importlib.import_module(f"{faker_person.__name__}.{module.name}").Provider
        _add_names(sets, provider, module.name)
    return NameLists(**{key: frozenset(found) for key, found in sets.items()})


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
