"""The rules of this package as one detector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from megatron_biollm.corpus.deidentify.dates import DateDetector
from megatron_biollm.corpus.deidentify.lexicon import Lexicon
from megatron_biollm.corpus.deidentify.names import NameDetector
from megatron_biollm.corpus.deidentify.organisations import OrganisationDetector
from megatron_biollm.corpus.deidentify.patterns import PatternDetector
from megatron_biollm.corpus.deidentify.phones import PhoneDetector
from megatron_biollm.corpus.deidentify.places import PlaceDetector
from megatron_biollm.corpus.deidentify.spans import Detector, Span, resolve
from megatron_biollm.corpus.deidentify.streets import StreetDetector
from megatron_biollm.corpus.deidentify.words import Coder


def rule_detectors(lexicon: Lexicon) -> list[Detector]:
    """Every detector of this package; none needs a model."""
    coder = Coder(lexicon)
    return [
        PatternDetector(),
        PhoneDetector(),
        DateDetector(),
        StreetDetector(lexicon, coder),
        PlaceDetector(lexicon, coder),
        OrganisationDetector(lexicon, coder),
        NameDetector(lexicon, coder),
    ]


def detect(text: str, detectors: Sequence[Detector]) -> list[Span]:
    """What all detectors find, in order, without overlap, without space or points at the ends."""
    return settle(text, (span for detector in detectors for span in detector(text)))


def settle(text: str, spans: Iterable[Span]) -> list[Span]:
    """Overlaps resolved; of what is left of a span, nothing but words and numbers."""
    return [trimmed for span in resolve(spans) if (trimmed := _trim(text, span)) is not None]


def _trim(text: str, span: Span) -> Span | None:
    """None where nothing is left: a comma, or the "'s" behind a name."""
    start, end = span.start, span.end
    while start < end and not (text[start].isalnum() or text[start] in "+(*<"):
        start += 1
    while start < end and not (text[end - 1].isalnum() or text[end - 1] in ")>=*/"):
        end -= 1
    if not any(map(str.isalnum, text[start:end])) or (
        text[start:end] in ("s", "S") and text[start - 1 : start] in ("'", "’")
    ):
        return None
    whole = start == span.start and end == span.end
    return span if whole else replace(span, start=start, end=end)
