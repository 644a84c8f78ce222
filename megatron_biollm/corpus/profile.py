"""What the kept documents of a shard are like: lengths, dates, languages, licences, a few texts.

Profiles of shards add up to the profile of a source, in whatever order: counts are summed, and
the samples are those of the smallest hashes, so every document has the same chance to be shown.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from megatron_biollm.corpus.document import Document

UNKNOWN, OTHER = "not stated", "(others)"
SAMPLES = 8
SAMPLE_CHARACTERS = 1200
# Copyright lines are often worded for one article each; the page and the memory have an end.
_DIFFERENT, _LICENCE_CHARACTERS = 200, 120
_YEAR = re.compile(r"[12]\d{3}(?=-|$)")
_ANY_YEAR = re.compile(r"\b(?:19|20)\d\d\b")


@dataclass
class Profile:
    """Counts of documents, all of one source.

    lengths: by the number of bits of their characters: documents of 2^(n-1) to 2^n - 1 under n.
    years: of publication. samples: beginnings of a few texts.
    """

    lengths: Counter[str] = field(default_factory=Counter)
    years: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    samples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, document: Document) -> None:
        """Counts one more document."""
        year = _YEAR.match(document.date or "")
        self.lengths[str(len(document.text).bit_length())] += 1
        self.years[year[0] if year else UNKNOWN] += 1
        self.languages[document.language or UNKNOWN] += 1
        _count(self.licences, _licence(document))
        rank = _rank(document)
        if len(self.samples) < SAMPLES or rank < self.samples[-1]["rank"]:
            self.samples = _first([*self.samples, _sample(document, rank)])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**{name: dict(getattr(self, name)) for name in _COUNTS}, "samples": self.samples}


_COUNTS = ("lengths", "years", "languages", "licences")


def merge_profiles(profiles: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The profile of all documents, from the profiles of parts of them."""
    total = Profile()
    for profile in profiles:
        for name in _COUNTS:
            for key, count in profile[name].items():
                _count(getattr(total, name), key, count)
        total.samples = _first(total.samples + profile["samples"])
    return total.to_dict()


def _count(counts: Counter[str], key: str, count: int = 1) -> None:
    counts[key if key in counts or len(counts) < _DIFFERENT else OTHER] += count


def _licence(document: Document) -> str:
    """Shortened, and the same for all years of one publisher's copyright line."""
    return _ANY_YEAR.sub("YEAR", document.licence or UNKNOWN)[:_LICENCE_CHARACTERS]


def _rank(document: Document) -> str:
    return hashlib.blake2b(f"{document.source} {document.id}".encode(), digest_size=8).hexdigest()


def _first(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(samples, key=lambda sample: (sample["rank"], sample["id"]))[:SAMPLES]


def _sample(document: Document, rank: str) -> dict[str, Any]:
    return {
        "rank": rank,
        "id": document.id,
        "date": document.date,
        "licence": document.licence,
        "characters": len(document.text),
        "sections": [section.name for section in document.sections][:30],
        "text": document.text[:SAMPLE_CHARACTERS],
    }
