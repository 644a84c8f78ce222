"""What the kept documents are like: lengths, years, languages, licences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from megatron_biollm.corpus.profile import OTHER, UNKNOWN

SHOWN = 12
_COLUMNS = 60
_WIDTHS = (1, 2, 5, 10, 20, 50)

Profiles = Mapping[str, Mapping[str, Any]]


def lengths(profiles: Profiles) -> dict[str, Any]:
    """Shares of each source's documents by length, in bins that double.

    labels: the smallest number of characters in each bin. rows: by source, the counts.
    """
    counted = {source: _numbers(profile["lengths"]) for source, profile in profiles.items()}
    bits = {bit for counts in counted.values() for bit in counts}
    if not bits:
        return {"labels": [], "rows": []}
    bins = range(min(bits), max(bits) + 1)
    rows = [
        {"source": source, "counts": [counts[bit] for bit in bins], "total": counts.total()}
        for source, counts in sorted(counted.items())
    ]
    return {"labels": [_power(bit) for bit in bins], "rows": rows}


def years(profiles: Profiles) -> dict[str, Any]:
    """Documents by year of publication and source; several years in a bin where they are many."""
    counted = {source: Counter(profile["years"]) for source, profile in profiles.items()}
    unknown = sum(counts.pop(UNKNOWN, 0) + counts.pop(OTHER, 0) for counts in counted.values())
    known = sorted(int(year) for counts in counted.values() for year in counts)
    if not known:
        return {"labels": [], "rows": [], "unknown": unknown, "width": 1}
    span = known[-1] - known[0] + 1
    width = next((w for w in _WIDTHS if span / w < _COLUMNS), _WIDTHS[-1])
    starts = range(known[0] // width * width, known[-1] + 1, width)
    rows = []
    for source, counts in sorted(counted.items()):
        binned: Counter[int] = Counter()
        for year, count in counts.items():
            binned[int(year) // width * width] += count
        rows.append({"source": source, "counts": [binned[start] for start in starts]})
    labels = [str(start) for start in starts]
    return {"labels": labels, "rows": rows, "unknown": unknown, "width": width}


def shares(profiles: Profiles, name: str) -> list[dict[str, Any]]:
    """The most frequent values of "languages" or "licences" by source, with their shares."""
    found = []
    for source, profile in sorted(profiles.items()):
        counts = Counter(profile[name])
        total, rest = counts.total(), counts.pop(OTHER, 0)
        shown = counts.most_common(SHOWN)
        rest += counts.total() - sum(count for _, count in shown)
        values = [*shown, *([(OTHER, rest)] if rest else [])]
        rows = [{"value": v, "count": n, "share": n / total if total else 0.0} for v, n in values]
        found.append({"source": source, "rows": rows})
    return found


def _numbers(counts: Mapping[str, int]) -> Counter[int]:
    return Counter({int(bit): count for bit, count in counts.items()})


def _power(bit: int) -> str:
    """The smallest number of so many bits, as people write it: 512, 4k, 1M."""
    value = 1 << max(bit - 1, 0)
    for unit, size in (("G", 1 << 30), ("M", 1 << 20), ("k", 1 << 10)):
        if value >= size:
            return f"{value // size}{unit}"
    return str(value)
