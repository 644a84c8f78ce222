"""Clinical notes in, notes without identifiers out, or nothing: a note that fails is dropped."""

from __future__ import annotations

import importlib
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.corpus.deidentify.audit import Auditor
from megatron_biollm.corpus.deidentify.config import DeidentifyConfig, read_secret
from megatron_biollm.corpus.deidentify.detect import detect, rule_detectors, settle
from megatron_biollm.corpus.deidentify.lexicon import Lexicon
from megatron_biollm.corpus.deidentify.measured import measured_line
from megatron_biollm.corpus.deidentify.spans import Detector, Span
from megatron_biollm.corpus.deidentify.surrogates import SurrogateLists, Surrogates
from megatron_biollm.corpus.deidentify.vocabulary import CLINICAL, TITLES
from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.steps import Drop

FAILED = "deidentify_failed"
RESIDUAL = "deidentify_residual"
_BROKEN = re.compile("[\x00\ud800-\udfff]")
_REPLACED = "\ufffd"
_HIDDEN = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\u00ad]")
_REMEMBERED = 10_000
# What metadata tell of a patient may hold "Clinic" and "Mrs.", which are nobody's names.
_KINDS = CLINICAL | TITLES
_LATIN = re.compile(r"[A-Za-z]")
_LETTER = re.compile(r"[^\W\d_]")
# Metadata that names the patient; readers put them, they help, and they never leave.
_NAMES_IN_METADATA = ("patient_names", "known_identifiers")


class Deidentifier:
    """A processor for the corpus pipeline: replaces identifiers by consistent surrogates.

    `metadata["patient"]` is the key of the patient (the id of the note where it is missing);
    `metadata["patient_names"]` may hold names that are known. Neither leaves. Pickled, it holds no
    secret: every process reads it again.

    Raises:
        UserError: no secret (see `read_secret`), or a detector that cannot be imported.
    """

    name = "deidentify"

    def __init__(self, config: DeidentifyConfig, detectors: Sequence[Detector] = ()) -> None:
        read_secret(config)
        self.config = config
        self.tally: Counter[str] = Counter()
        self._given = tuple(detectors)
        self._parts: _Parts | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_parts": None}

    @property
    def measured(self) -> str:
        """Recall and precision as measured, to stand wherever the word de-identified does."""
        return measured_line()

    def __call__(self, document: Document) -> Document | Drop:
        if document.source not in self.config.sources:
            return document
        self.tally["notes"] += 1
        try:
            outcome = self._process(document)
        except UserError:
            raise
        except Exception as error:
            # The message of the error may hold text of the note.
            outcome = Drop(FAILED, type(error).__name__)
        if isinstance(outcome, Drop):
            self.tally[f"dropped_{outcome.reason}"] += 1
        return outcome

    def spans(self, document: Document) -> list[Span]:
        """The identifiers in the text of a document, the names that its metadata tell included."""
        return self._find(self._loaded(), document.text, _known(document))

    def _process(self, document: Document) -> Document | Drop:
        reason = self._refusal(document)
        if reason is not None:
            return Drop(FAILED, reason)
        parts, known = self._loaded(), _known(document)
        surrogates = self._surrogates(parts, document)
        spans = self._find(parts, document.text, known)
        edits = [(s.start, s.end, surrogates.replace(document.text, s)) for s in spans]
        edited = document.edit(edits)
        clean = replace(
            edited,
            id=surrogates.opaque(document.id),
            date=surrogates.shift(document.date) if document.date else None,
            metadata=self._metadata(parts, document, surrogates, known),
            sections=tuple(
                replace(s, name=self._section_name(parts, s.name)) for s in edited.sections
            ),
        )
        self.tally.update(f"replaced_{span.kind}" for span in spans)
        return self._audited(parts, document, clean, edits)

    def _audited(
        self,
        parts: _Parts,
        before: Document,
        after: Document,
        edits: Sequence[tuple[int, int, str]],
    ) -> Document | Drop:
        residuals = parts.auditor(after.text, _new_ranges(edits), before.text, _known(before))
        self.tally.update(f"residual_{residual.kind}" for residual in residuals)
        self.tally["notes_with_residuals"] += bool(residuals)
        if residuals and self.config.drop_residual:
            kinds = sorted({residual.kind for residual in residuals})
            return Drop(RESIDUAL, ", ".join(kinds))
        return after

    def _refusal(self, document: Document) -> str | None:
        """Why a note cannot be de-identified by these rules; None if it can."""
        text = document.text
        if len(text) > self.config.max_chars:
            return f"{len(text)} characters, more than {self.config.max_chars}"
        if _BROKEN.search(text):
            return "characters that no text holds"
        if text.count(_REPLACED) * 100 > len(text):
            return "wrong encoding"
        if len(_HIDDEN.findall(text)) * 200 > len(text):
            return "invisible characters"
        if document.language and document.language not in self.config.languages:
            return f"language {document.language}"
        if not text.isascii() and len(_LATIN.findall(text)) * 2 < len(_LETTER.findall(text)):
            return "another script"
        return None

    def _find(self, parts: _Parts, text: str, known: Sequence[str]) -> list[Span]:
        begun, found = time.monotonic(), []
        for detector in parts.detectors:
            found += detector(text)
            if time.monotonic() - begun > self.config.max_seconds:
                raise TimeoutError
        return settle(text, [*found, *_known_spans(text, known, parts.lexicon)])

    def _metadata(
        self, parts: _Parts, document: Document, surrogates: Surrogates, known: Sequence[str]
    ) -> dict[str, Any]:
        kept = {k: v for k, v in document.metadata.items() if k in self.config.keep_metadata}
        kept = {k: v for k, v in kept.items() if not isinstance(v, str) or self._is_plain(parts, v)}
        title = document.metadata.get("title")
        if isinstance(title, str):
            spans = self._find(parts, title, known)
            kept["title"] = _replaced(title, spans, surrogates)
        return kept

    def _section_name(self, parts: _Parts, name: str) -> str:
        """Headings come from the note: one that holds an identifier is not repeated."""
        return name if self._is_plain(parts, name) else "section"

    def _is_plain(self, parts: _Parts, text: str) -> bool:
        known = parts.plain.get(text)
        if known is None:
            found = detect(text, parts.detectors) or detect(text.title(), parts.detectors)
            if len(parts.plain) > _REMEMBERED:
                parts.plain.clear()
            known = parts.plain[text] = not found
        return known

    def _surrogates(self, parts: _Parts, document: Document) -> Surrogates:
        patient = document.metadata.get("patient") or document.id
        year = re.match(r"(?:19|20)\d{2}", document.date or "")
        years = re.findall(r"(?<!\d)(?:19[5-9]\d|20[0-4]\d)(?!\d)", document.text)
        return Surrogates(
            parts.secret,
            str(patient),
            parts.lexicon,
            parts.lists,
            self.config.max_shift_days,
            self.config.dates,
            int(year[0]) if year else max(map(int, years), default=None),
        )

    def _loaded(self) -> _Parts:
        if self._parts is None:
            self._parts = _Parts(self.config, self._given)
        return self._parts


class _Parts:
    """What a process loads once and never pickles: secret, word lists, detectors."""

    def __init__(self, config: DeidentifyConfig, given: Sequence[Detector]) -> None:
        self.secret = read_secret(config)
        self.lexicon = Lexicon.load()
        self.lists = SurrogateLists()
        self.detectors: list[Detector] = [
            *rule_detectors(self.lexicon),
            *given,
            *map(_imported, config.detectors),
        ]
        self.auditor = Auditor(self.lexicon)
        # Headings and kinds of notes come again and again.
        self.plain: dict[str, bool] = {}


def _imported(name: str) -> Detector:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"deidentify.detectors names {name}, which cannot be loaded: {error}; install it, or "
            "take it from the list"
        ) from error


def _known(document: Document) -> list[str]:
    """Words that the metadata say are names of the patient or of others."""
    values = [document.metadata.get(key) or [] for key in _NAMES_IN_METADATA]
    texts = [v for value in values for v in ([value] if isinstance(value, str) else value)]
    return sorted({w for text in texts for w in re.findall(r"[\w'’-]{3,}", str(text))})


def _known_spans(text: str, known: Sequence[str], lexicon: Lexicon) -> list[Span]:
    """Where known names stand; "will" is Will only with a capital, "Clinic" is nobody's name."""
    known = [w for w in known if lexicon.is_name(w.lower()) or w.lower() not in _KINDS]
    if not known:
        return []
    alternatives = "|".join(map(re.escape, sorted(known, key=len, reverse=True)))
    pattern = re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)", re.IGNORECASE)
    return [
        Span(*m.span(), "other_id" if m[0][0].isdigit() else "name", "known", 99)
        for m in pattern.finditer(text)
        if not (m[0].islower() and m[0] in lexicon.words)
    ]


def _replaced(text: str, spans: Sequence[Span], surrogates: Surrogates) -> str:
    for span in reversed(spans):
        text = text[: span.start] + surrogates.replace(text, span) + text[span.end :]
    return text


def _new_ranges(edits: Sequence[tuple[int, int, str]]) -> list[tuple[int, int]]:
    """Where the surrogates stand in the new text: the audit passes them over."""
    ranges, moved = [], 0
    for start, end, new in edits:
        ranges.append((start + moved, start + moved + len(new)))
        moved += len(new) - (end - start)
    return ranges
