"""The work of `tools/deidentify.py`: files of notes in, JSONL and a report out."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from megatron_biollm.atomic import whole_file, write_json
from megatron_biollm.config import UserError
from megatron_biollm.corpus.deidentify.config import DeidentifyConfig
from megatron_biollm.corpus.deidentify.detect import rule_detectors
from megatron_biollm.corpus.deidentify.engine import Deidentifier
from megatron_biollm.corpus.deidentify.lexicon import Lexicon
from megatron_biollm.corpus.deidentify.measure import measure_halves, result_text
from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.readers.note_table import long_rows
from megatron_biollm.corpus.steps import Drop
from megatron_biollm.log import Progress

_SUMMARY = (
    "texts",
    "identifiers",
    "leak_rate",
    "character_recall",
    "recall_by_label",
    "precision_by_kind",
    "caveat",
    "packages",
)


def deidentify_file(
    source: Path,
    target: Path,
    config: DeidentifyConfig,
    columns: tuple[str, str] = ("text", "patient"),
    audit: bool = False,
) -> tuple[dict[str, Any], str]:
    """De-identifies every note of a file; the output appears only when it is complete.

    Args:
        source: `.jsonl`, `.csv` or plain text, also gzipped.
        columns: of a CSV: the note, the key of the patient (may be missing).
        audit: also report what the audit found.

    Returns:
        The report as plain JSON values and as a text.

    Raises:
        UserError: no secret, or a file that cannot be read or written.
    """
    processor = Deidentifier(config)
    counts: Counter[str] = Counter()
    try:
        with whole_file(target) as file:
            progress = Progress(None, "de-identifying", unit="notes")
            for document in progress.track(_notes(source, columns, counts)):
                outcome = processor(document)
                if isinstance(outcome, Drop):
                    continue
                counts["written"] += 1
                file.write(f"{outcome.to_json()}\n".encode())
    except (OSError, EOFError) as error:
        raise UserError(
            f"{source} cannot be de-identified into {target}: {error}; give a readable file and a "
            "folder with free space"
        ) from error
    report = _report(processor, counts, audit)
    return report, _report_text(report)


def measure_file(
    labelled: str, output: str | None, record: bool = False
) -> tuple[dict[str, Any], str]:
    """Measures the rules on a labelled set; writes the result where asked.

    Args:
        output: JSON file for the whole result.
        record: also keep the summary inside the package, where `measured_line` reads it.
    """
    lexicon = Lexicon.load()
    result = measure_halves(labelled, rule_detectors(lexicon), lexicon)
    if output:
        _write_json(Path(output), result)
    if record:
        summary = {key: result[key] for key in _SUMMARY}
        _write_json(Path(__file__).parent / "data" / "measured.json", summary)
    return result, result_text(result)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    try:
        write_json(path, value)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}; give a folder you may write to") from error


def _notes(source: Path, columns: tuple[str, str], counts: Counter[str]) -> Iterator[Document]:
    """Every record as a clinical note, whatever source it names: the user asked for it."""
    name = source.name.lower().removesuffix(".gz")
    with _open(source) as file:
        if name.endswith((".jsonl", ".json")):
            yield from _from_jsonl(file, source.stem, counts)
        elif name.endswith(".csv"):
            yield from _from_csv(file, source.stem, columns)
        else:
            yield Document(text=file.read(), id=source.stem, source="clinical_notes")


def _open(path: Path) -> TextIO:
    opener = gzip.open if path.suffix == ".gz" else open
    # A wrong byte becomes U+FFFD, and a note that holds many is dropped.
    return opener(path, "rt", encoding="utf-8-sig", errors="replace", newline="")


def _from_jsonl(file: TextIO, stem: str, counts: Counter[str]) -> Iterator[Document]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            record = {"id": f"{stem}-{number}", **json.loads(line), "source": "clinical_notes"}
            yield Document.from_json(record)
        except (ValueError, TypeError, KeyError):
            counts["broken_records"] += 1


def _from_csv(file: TextIO, stem: str, columns: tuple[str, str]) -> Iterator[Document]:
    rows = csv.DictReader(file)
    text_column, patient_column = columns
    if text_column not in (rows.fieldnames or ()):
        raise UserError(
            f"the CSV has no column {text_column!r} but {rows.fieldnames}; name it with "
            "--text-column"
        )
    for number, row in enumerate(long_rows(rows), 1):
        if not (row[text_column] or "").strip():
            continue
        patient = row.get(patient_column)
        yield Document(
            text=row[text_column],
            id=f"{stem}-{number}",
            source="clinical_notes",
            metadata={"patient": patient} if patient else {},
        )


def _report(processor: Deidentifier, counts: Counter[str], audit: bool) -> dict[str, Any]:
    tally = processor.tally
    notes = tally["notes"]
    report: dict[str, Any] = {
        "measured": processor.measured,
        "notes": notes,
        "written": counts["written"],
        "broken_records": counts["broken_records"],
        "dropped": _begins(tally, "dropped_"),
        "replaced": _begins(tally, "replaced_"),
    }
    if audit:
        report["audit"] = {
            "residuals": _begins(tally, "residual_"),
            "notes_with_residuals": tally["notes_with_residuals"],
            "estimated_leak_rate": tally["notes_with_residuals"] / notes if notes else None,
        }
    return report


def _begins(tally: Counter[str], prefix: str) -> dict[str, int]:
    return {k.removeprefix(prefix): n for k, n in sorted(tally.items()) if k.startswith(prefix)}


def _report_text(report: dict[str, Any]) -> str:
    lines = [
        f"{report['written']} of {report['notes']} notes written; "
        f"{report['broken_records']} records broken",
        f"de-identified: {report['measured']}",
    ]
    for title in ("dropped", "replaced"):
        lines += [f"{title} {name}: {count}" for name, count in report[title].items()]
    if "audit" in report:
        audit = report["audit"]
        lines += [f"audit {name}: {count}" for name, count in audit["residuals"].items()]
        rate = audit["estimated_leak_rate"]
        lines.append(
            f"audit: {audit['notes_with_residuals']} notes hold something the second pass cannot "
            "vouch for" + (f"; estimated leak rate {rate:.1%}" if rate is not None else "")
        )
    return "\n".join(lines)
