"""What a detector finds: stretches of a text, each of one kind of identifier."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import pairwise
from typing import Protocol

# The kinds and the letter of each in 45 CFR 164.514(b)(2)(i), the Safe Harbor list of eighteen.
SAFE_HARBOR = {
    "name": "A",
    "organisation": "A",  # names of employers; facilities are replaced with them
    "location": "B",
    "zip": "B",
    "date": "C",
    "age": "C",
    "phone": "D",
    "fax": "E",
    "email": "F",
    "ssn": "G",
    "medical_record": "H",
    "health_plan": "I",
    "account": "J",
    "licence": "K",
    "vehicle": "L",
    "device": "M",
    "url": "N",
    "ip": "O",
    "biometric": "P",
    "photograph": "Q",
    "other_id": "R",
}


@dataclass(frozen=True, order=True)
class Span:
    """Characters `start` to `end`, the end not included, are an identifier of this kind.

    kind: a key of `SAFE_HARBOR`.
    rule: which rule found it, for reports.
    priority: of spans that overlap, the highest decides the kind.
    """

    start: int
    end: int
    kind: str
    rule: str = ""
    priority: int = 0


class Detector(Protocol):
    """Finds identifiers in a text; own rules are such, and so is a model that the user plugs in.

    Spans may overlap and come in any order. A detector must be picklable and deterministic.
    """

    def __call__(self, text: str) -> list[Span]: ...


def resolve(spans: Iterable[Span]) -> list[Span]:
    """Spans in order, without overlap.

    Where spans overlap the one of the highest priority, then the longest, stays whole; what the
    others hold beside it stays too, as spans of their own kind: nothing found is given up.
    """
    ordered = sorted(spans, key=lambda s: (s.start, -s.end))
    marks = sorted({mark for span in ordered for mark in (span.start, span.end)})
    kept: list[tuple[int, int, int]] = []  # start, end, which span
    active: list[tuple[int, int, int, int]] = []  # a heap; the best span lies on top
    following = 0
    for start, end in pairwise(marks):
        while following < len(ordered) and ordered[following].start <= start:
            span = ordered[following]
            heappush(active, (-span.priority, span.start - span.end, span.start, following))
            following += 1
        while active and ordered[active[0][3]].end <= start:
            heappop(active)
        if not active:
            continue
        which = active[0][3]
        if kept and kept[-1][1] == start and kept[-1][2] == which:
            kept[-1] = (kept[-1][0], end, which)
        else:
            kept.append((start, end, which))
    return [_cut(ordered[which], start, end) for start, end, which in kept]


def _cut(span: Span, start: int, end: int) -> Span:
    whole = span.start == start and span.end == end
    return span if whole else replace(span, start=start, end=end)
