"""All formats, in the order in which they are tried."""

from __future__ import annotations

from megatron_biollm.corpus.readers import (
    clinical_notes,
    clinical_trials,
    jsonl,
    patents,
    plain_text,
    pmc,
    pubmed,
    pubmed_exports,
)
from megatron_biollm.corpus.readers.format import Format

FORMATS: tuple[Format, ...] = (
    *pubmed.FORMATS,
    *pubmed_exports.FORMATS,
    *pmc.FORMATS,
    *clinical_trials.FORMATS,
    *clinical_notes.FORMATS,
    *patents.FORMATS,
    *jsonl.FORMATS,
    *plain_text.FORMATS,
)


# A text or a table says nothing of where it comes from: these readers need the user's word.
NAMED_ONLY: dict[str, tuple[Format, ...]] = {"clinical_notes": clinical_notes.NAMED_ONLY}


def find_format(head: bytes, name: str, source: str | None = None) -> Format | None:
    """The first format that knows a stream by its first bytes and its name; None for no one.

    source: only formats of this source are tried, among them those which need to be told.
    """
    formats = FORMATS
    if source is not None:
        own = tuple(form for form in FORMATS if form.source == source)
        formats = own + NAMED_ONLY.get(source, ())
    return next((form for form in formats if form.matches(head, name)), None)


def known_formats(source: str | None = None) -> str:
    """The formats' names, for messages."""
    names = [form.name for form in FORMATS if source in (None, form.source)]
    return ", ".join(names + [form.name for form in NAMED_ONLY.get(source or "", ())])
