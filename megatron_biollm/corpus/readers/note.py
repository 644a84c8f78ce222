"""What all clinical notes have in common: names that say nothing of the patient."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any

from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.readers.dates import iso_date

SOURCE = "clinical_notes"
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def note(
    parts: Iterable[tuple[str, str]],
    identity: Iterable[str],
    patient: str | None = None,
    date: str | None = None,
    names: Iterable[str] = (),
    numbers: Iterable[str] = (),
    **origin: Any,
) -> Document | None:
    """A clinical note; None without text.

    Args:
        parts: (section name, text).
        identity: what tells this note from others (numbers of notes, names of files). Such things
            hold names of people and record numbers, so a digest of them becomes the id.
        patient: what tells this patient from others; a digest of it becomes the key for
            surrogates and date shifts.
        date: begins with YYYY-MM-DD or YYYYMMDD as far as known.
        names: of the patient, relatives and staff, as far as the source lists them beside the
            text; de-identification looks for them and takes them out of the metadata.
        numbers: of the patient likewise (record, insurance, social security).
        origin: licence, language.
    """
    known = {
        "patient": digest("patient", patient) if patient else "",
        "patient_names": _distinct(name for name in names if _is_name(name)),
        "known_identifiers": _distinct(number for number in numbers if _is_number(number)),
    }
    return Document.of_sections(
        ((section_name(name), text) for name, text in parts),
        id=f"note-{digest('note', *identity)}",
        source=SOURCE,
        date=day_of(date),
        metadata={key: value for key, value in known.items() if value},
        **origin,
    )


def digest(*parts: str) -> str:
    """24 hexadecimal digits. Without a key, so it hides a number from sight, not from a search."""
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=12).hexdigest()


def _distinct(values: Iterable[str]) -> list[str]:
    return sorted({" ".join(value.split()) for value in values})


def _is_name(value: str) -> bool:
    """Initials and single letters would be found in every word list."""
    return len(value.strip(" .")) > 1


def _is_number(value: str) -> bool:
    """Long enough not to be a dose or an age."""
    return len(re.findall(r"\d", value)) > 4


def section_name(title: str) -> str:
    """``history_of_present_illness``; "note" where nothing is left."""
    return re.sub(r"\W+", "_", title.lower()).strip("_") or "note"


def day_of(time: str | None) -> str | None:
    """The day of an ISO 8601 or HL7 time (2012-09-10T11:22:33Z, 20120910112233), if it has one."""
    match = re.match(r"\s*(\d{4})(?:-?(\d\d)(?:-?(\d\d))?)?", time or "")
    return iso_date(*match.groups()) if match else None


def is_whole_text(text: str) -> bool:
    """No NUL and no half of a surrogate pair, which no UTF-8 file and no tokenizer can hold."""
    return _NO_TEXT.search(text) is None
