"""The unit of a corpus: one text with its origin and the marks of its sections."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import accumulate
from typing import Any


@dataclass(frozen=True)
class Section:
    """A named stretch of a text: characters `start` to `end`, the end not included."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Document:
    """One text and where it comes from.

    text: the text itself, never empty.
    id: identifier within its source, for example a PMID.
    source: "pubmed", "pmc", "clinical_trials", "clinical_notes", "patents", or what a JSONL record
        names as its source ("text" for plain text).
    licence: licence or copyright line where the source states one.
    date: publication date as far as known: YYYY, YYYY-MM or YYYY-MM-DD.
    language: ISO 639-1 code where the source states one.
    sections: in order, not overlapping; blank lines between them belong to none.
    metadata: plain JSON values: other identifiers (pmid, pmcid, doi, nct_id, family), version,
        retracted, classification, title, journal.
    """

    text: str
    id: str
    source: str
    licence: str | None = None
    date: str | None = None
    language: str | None = None
    sections: tuple[Section, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_sections(cls, parts: Iterable[tuple[str, str]], **origin: Any) -> Document | None:
        """Joins named parts with blank lines; None where no part holds more than white space."""
        text, sections = "", []
        for name, part in parts:
            part = part.strip()
            if not part:
                continue
            start = len(text) + 2 if text else 0
            text = f"{text}\n\n{part}" if text else part
            sections.append(Section(name, start, start + len(part)))
        return cls(text=text, sections=tuple(sections), **origin) if text else None

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Document:
        """The inverse of `to_json`, after `json.loads`; unknown keys are left behind.

        Raises:
            KeyError, TypeError: `record` is not what `to_json` writes.
        """
        known = {name: record[name] for name in _NAMES if name in record}
        known["sections"] = tuple(Section(*mark) for mark in record.get("sections", ()))
        return cls(**known)

    def to_record(self) -> dict[str, Any]:
        """Plain JSON values; unknown fields are left out."""
        record = {name: getattr(self, name) for name in _NAMES if getattr(self, name)}
        if self.sections:
            record["sections"] = [[s.name, s.start, s.end] for s in self.sections]
        return record

    def to_json(self) -> str:
        """One JSONL line without its line break."""
        return json.dumps(self.to_record(), ensure_ascii=False)

    def edit(self, edits: Sequence[tuple[int, int, str]]) -> Document:
        """The document with stretches of its text replaced, its sections moved along.

        A section that loses its whole text is left out; a replacement over the end of a section
        belongs to the section it starts in.

        Args:
            edits: (start, end, replacement), in order and not overlapping.

        Raises:
            ValueError: edits overlap or lie outside the text.
        """
        if not edits:
            return self
        pieces, at = [], 0
        for start, end, new in edits:
            if not at <= start <= end <= len(self.text):
                raise ValueError(f"edit {start}:{end} overlaps the one before it or the text's end")
            pieces += [self.text[at:start], new]
            at = end
        pieces.append(self.text[at:])
        return replace(self, text="".join(pieces), sections=_moved(self.sections, edits))


_NAMES = tuple(f.name for f in fields(Document))


def _moved(
    sections: Sequence[Section], edits: Sequence[tuple[int, int, str]]
) -> tuple[Section, ...]:
    ends = [end for _, end, _ in edits]
    shifts = [0, *accumulate(len(new) - (end - start) for start, end, new in edits)]

    def place(mark: int, is_end: bool) -> int:
        done = bisect_right(ends, mark)
        # What is inserted where a section begins belongs to that section.
        while done and not is_end and edits[done - 1][0] == mark:
            done -= 1
        if done < len(edits) and edits[done][0] < mark:
            return edits[done][0] + shifts[done] + len(edits[done][2])
        return mark + shifts[done]

    moved = (Section(s.name, place(s.start, False), place(s.end, True)) for s in sections)
    return tuple(s for s in moved if s.end > s.start)
