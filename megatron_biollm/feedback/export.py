"""Verdicts as training data: TRL's preference form, KTO, conversations, Label Studio.

Forms: https://huggingface.co/docs/trl/dataset_formats. Only an export names the models.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from megatron_biollm.atomic import disk_errors, whole_file
from megatron_biollm.config import UserError
from megatron_biollm.feedback.importers.label_studio import OTHER_VERDICTS
from megatron_biollm.feedback.verdicts import SIDES, Counts, Filters, Verdict, verdicts

Row = dict[str, Any]


@dataclass
class Exported:
    """rows: written; left_out: reason to number of items; wins: model to [won, lost] pairs."""

    path: str
    rows: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    wins: dict[str, list[int]] = field(default_factory=dict)


def export(
    connection: sqlite3.Connection,
    output: str | Path,
    form: str = "preference",
    filters: Optional[Filters] = None,
    overwrite: bool = False,
) -> Exported:
    """Writes a file in one of `FORMS`, whole or not at all, as of one moment of the database.

    Raises:
        UserError: `output` exists and `overwrite` is False, an unknown form, no row to write, or
            a full disk.
    """
    output = Path(output)
    if form not in FORMS:
        raise UserError(f"form is {form!r}; give one of {', '.join(FORMS)}")
    if output.exists() and not overwrite:
        raise UserError(f"{output} exists already; give another name, or --overwrite")
    counts, done = Counts(), Exported(str(output))
    connection.execute("BEGIN")
    try:
        with disk_errors(output, "free some space and export again"), whole_file(output) as file:
            rows = FORMS[form](connection, filters or Filters(), counts)
            for line in _lines(form, _counted(rows, done)):
                file.write(line.encode())
            if not done.rows:
                raise UserError(_nothing(counts))
    finally:
        connection.execute("ROLLBACK")
    done.left_out = dict(counts.left_out)
    return done


def _nothing(counts: Counts) -> str:
    reasons = ", ".join(f"{n} {reason}" for reason, n in counts.left_out.items())
    return (
        f"nothing to export ({reasons or 'no items'}), so no file was written; loosen the filters "
        "or wait for more judgements"
    )


def _counted(rows: Iterable[Row], done: Exported) -> Iterator[Row]:
    for row in rows:
        done.rows += 1
        models = row.get("meta", {}).get("models") if isinstance(row.get("meta"), dict) else None
        if isinstance(models, dict) and row["meta"].get("kind") == "comparison":
            done.wins.setdefault(models["chosen"], [0, 0])[0] += 1
            done.wins.setdefault(models["rejected"], [0, 0])[1] += 1
        yield row


def _lines(form: str, rows: Iterable[Row]) -> Iterator[str]:
    if form != "label-studio":
        yield from (f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        return
    for number, row in enumerate(rows):
        yield f"{',' if number else '['}\n{json.dumps(row, ensure_ascii=False)}"
    yield "\n]\n"


def preference_rows(
    connection: sqlite3.Connection, filters: Filters, counts: Counts
) -> Iterator[Row]:
    """One row for a decided comparison, and one for a correction against what it corrects."""
    for verdict in verdicts(connection, filters, counts):
        reason = _unfit(verdict, filters)
        if reason is None:
            yield _pair(verdict, _chosen(verdict), verdict.margin)
        elif not verdict.corrections:
            counts.left_out[reason] += 1
        yield from _corrected_pairs(verdict)


def _unfit(verdict: Verdict, filters: Filters) -> Optional[str]:
    """Why a verdict makes no pair, or None."""
    if verdict.judgements < filters.min_judgements:
        return "too few judgements"
    if verdict.preference is None:
        return "no majority"
    if verdict.preference not in SIDES:
        return {"tie": "tie", "both_unsafe": "both unsafe"}[verdict.preference]
    if (verdict.agreement or 0) < filters.min_agreement:
        return "too little agreement"
    if verdict.unsafe[_chosen(verdict)] and not filters.allow_unsafe:
        return "chosen answer flagged as unsafe"
    return None


def _chosen(verdict: Verdict) -> int:
    return SIDES.index(verdict.preference)


def _pair(verdict: Verdict, chosen: int, margin: Optional[float]) -> Row:
    models = {"chosen": verdict.models[chosen], "rejected": verdict.models[1 - chosen]}
    return _row(
        verdict, verdict.texts[chosen], verdict.texts[1 - chosen], margin, "comparison", models
    )


def _row(
    verdict: Verdict,
    chosen: str,
    rejected: str,
    margin: Optional[float],
    kind: str,
    models: dict[str, str],
) -> Row:
    return {
        "id": f"{verdict.key[:16]}-{kind}-{models['rejected'] or 'answer'}",
        "prompt": verdict.prompt,
        "chosen": _said(chosen),
        "rejected": _said(rejected),
        "margin": margin,
        "meta": {**_meta(verdict), "kind": kind, "models": models},
    }


def _corrected_pairs(verdict: Verdict) -> Iterator[Row]:
    """A correction is better than what it was made from; one written afresh than the better
    answer, or than both where neither is."""
    for text, base in dict.fromkeys(verdict.corrections):
        sides = [base] if base else [verdict.preference]
        for side in sides if sides[0] in SIDES else SIDES:
            place = SIDES.index(side)
            if text.strip() == verdict.texts[place].strip():
                continue
            models = {"chosen": "expert", "rejected": verdict.models[place]}
            yield _row(verdict, text, verdict.texts[place], None, "correction", models)


def _meta(verdict: Verdict) -> Row:
    return {
        "item": verdict.key,
        "source": verdict.source,
        "external_id": verdict.external_id,
        "agreement": verdict.agreement,
        "judgements": verdict.judgements,
        "adjudicated": verdict.adjudicated,
        "specialties": list(verdict.specialties),
    }


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def kto_rows(connection: sqlite3.Connection, filters: Filters, counts: Counts) -> Iterator[Row]:
    """Single answers with a label: chosen and corrected ones are good, rejected and unsafe bad.

    An answer that is good in one comparison and bad in another is left out.
    """
    found: dict[tuple[str, str], tuple[Row, set[bool]]] = {}
    for verdict in verdicts(connection, filters, counts):
        for text, label in _labels(verdict, filters):
            row = {"prompt": verdict.prompt, "completion": _said(text), "label": label}
            key = (json.dumps(verdict.prompt), text)
            found.setdefault(key, (row, set()))[1].add(label)
    for row, labels in found.values():
        if len(labels) == 1:
            yield row
        else:
            counts.left_out["good and bad at once"] += 1


def _labels(verdict: Verdict, filters: Filters) -> Iterator[tuple[str, bool]]:
    if _unfit(verdict, filters) is None:
        chosen = _chosen(verdict)
        yield verdict.texts[chosen], True
        yield verdict.texts[1 - chosen], False
    elif verdict.preference == "both_unsafe" and verdict.judgements >= filters.min_judgements:
        yield from ((text, False) for text in verdict.texts)
    yield from ((text, True) for text, _ in verdict.corrections)


def conversation_rows(
    connection: sqlite3.Connection, filters: Filters, counts: Counts
) -> Iterator[Row]:
    """Corrected answers as conversations for instruction tuning."""
    for verdict in verdicts(connection, filters, counts):
        if not verdict.corrections:
            counts.left_out["not corrected"] += 1
        for number, (text, _) in enumerate(dict.fromkeys(verdict.corrections)):
            yield {
                "id": f"{verdict.key[:16]}-{number}",
                "messages": [*verdict.prompt, *_said(text)],
                "meta": _meta(verdict),
            }


def label_studio_rows(
    connection: sqlite3.Connection, filters: Filters, counts: Counts
) -> Iterator[Row]:
    """Every item that was judged as a task with its annotations, whatever the verdict."""
    for verdict in verdicts(connection, filters, counts):
        opinions = connection.execute(
            "SELECT * FROM opinion WHERE item_id = ? ORDER BY id", [verdict.item_id]
        )
        yield {
            "id": verdict.item_id,
            "data": {
                "prompt": verdict.prompt,
                "answer_a": verdict.texts[0],
                "answer_b": verdict.texts[1],
                "model_a": verdict.models[0],
                "model_b": verdict.models[1],
                "id": verdict.external_id or verdict.key,
            },
            "annotations": [_annotation(opinion) for opinion in opinions],
        }


def _annotation(opinion: sqlite3.Row) -> Row:
    results = [_verdict_result(opinion["preference"])]
    if opinion["strength"]:
        value = {"rating": opinion["strength"]}
        results.append(_result("strength", "prompt", "rating", value))
    for side, letter in zip(SIDES, "ab", strict=True):
        if opinion[f"category_{side}"]:
            results.append(_choices(f"unsafe_{letter}", letter, opinion[f"category_{side}"]))
        if opinion[f"error_{side}"]:
            results.append(_choices(f"error_{letter}", letter, "wrong"))
    for name in ("rationale", "correction"):
        if opinion[name]:
            results.append(_result(name, "prompt", "textarea", {"text": [opinion[name]]}))
    return {
        "id": opinion["id"],
        "completed_by": {"id": opinion["annotator_id"], "email": opinion["name"]},
        "lead_time": opinion["wall_seconds"],
        "was_cancelled": False,
        "result": results,
    }


def _verdict_result(preference: str) -> Row:
    if preference in OTHER_VERDICTS:
        return _result("other", "prompt", "choices", {"choices": [preference]})
    selected = {"selected": "left" if preference == "first" else "right"}
    return _result("preference", "answer_a,answer_b", "pairwise", selected)


def _choices(name: str, letter: str, value: str) -> Row:
    return _result(name, f"answer_{letter}", "choices", {"choices": [value]})


def _result(name: str, to_name: str, kind: str, value: Row) -> Row:
    return {"id": name, "from_name": name, "to_name": to_name, "type": kind, "value": value}


Rows = Callable[[sqlite3.Connection, Filters, Counts], Iterator[Row]]
FORMS: dict[str, Rows] = {
    "preference": preference_rows,
    "kto": kto_rows,
    "conversations": conversation_rows,
    "label-studio": label_studio_rows,
}
