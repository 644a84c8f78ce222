"""The unit of a corpus: one text with its origin."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Document:
    """One text and where it comes from.

    text: the text itself, never empty.
    id: identifier within its source, for example a PMID.
    source: kind of source ("pubmed", "text") or what a JSONL record names as its source.
    licence: licence or copyright line where the source states one.
    date: publication date as far as known: YYYY, YYYY-MM or YYYY-MM-DD.
    """

    text: str
    id: str
    source: str
    licence: str | None = None
    date: str | None = None

    def to_json(self) -> str:
        """One JSONL line without its line break; unknown fields are left out."""
        fields = {key: value for key, value in asdict(self).items() if value is not None}
        return json.dumps(fields, ensure_ascii=False)
