"""Items from files into the database: all of a file or nothing, and never the same pair twice."""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.feedback.accounts import imported_account
from megatron_biollm.feedback.database import settings, transaction
from megatron_biollm.feedback.importers.answers import read_answers, read_two_files
from megatron_biollm.feedback.importers.label_studio import read_label_studio
from megatron_biollm.feedback.importers.preferences import (
    read_hh,
    read_preferences,
    read_ultrafeedback,
)
from megatron_biollm.feedback.importers.rows import read_rows
from megatron_biollm.feedback.items import (
    Item,
    Opinion,
    add_item,
    in_stored_order,
    problem,
)

FORMS = ("answers", "label-studio", "ultrafeedback", "preferences", "hh")


@dataclass
class Imported:
    """Counts of one import; dropped: reason to number of pairs."""

    added: int = 0
    there: int = 0
    opinions: int = 0
    dropped: dict[str, int] = field(default_factory=dict)


def tell_form(path: str | Path) -> str:
    """The form of a file, from its first row.

    Raises:
        UserError: it is none of `FORMS`.
    """
    place, row = next(read_rows(path), (str(path), None))
    if row is None:
        raise UserError(f"{path} is empty; give a file with at least one row")
    if "answers" in row:
        return "answers"
    if isinstance(row.get("data"), dict):
        return "label-studio"
    if "completions" in row and "instruction" in row:
        return "ultrafeedback"
    if isinstance(row.get("chosen"), str) and "\n\nAssistant:" in row["chosen"]:
        return "hh"
    if "chosen" in row and "rejected" in row:
        return "preferences"
    raise UserError(
        f"{place} has the fields {', '.join(row)}, which is none of the forms "
        f"{', '.join(FORMS)}; for two files of generations give --with"
    )


def read_form(
    form: str, path: str | Path, name: str = "", pairs_per_prompt: int = 1, seed: int = 0
) -> Iterator[Item]:
    """Items of a file in one of `FORMS`; name: of the data set or project, else the file's."""
    name = name or Path(path).stem
    if form == "answers":
        return read_answers(path, pairs_per_prompt, seed)
    if form == "label-studio":
        return read_label_studio(path, name)
    if form == "ultrafeedback":
        return read_ultrafeedback(path, name, pairs_per_prompt, seed)
    if form == "preferences":
        return read_preferences(path, name)
    if form == "hh":
        return read_hh(path, name)
    raise UserError(f"form is {form!r}; give one of {', '.join(FORMS)}")


def import_items(
    connection: sqlite3.Connection, items: Iterable[Item], now: float, gold: bool = False
) -> Imported:
    """Adds items and their opinions in one transaction.

    Pairs that cannot be compared (an empty answer, two equal ones) are counted and left out. What
    is there already stays as it is, opinions included.

    gold: every opinion of a data set is a known answer, to check the annotators with.
    """
    done, dropped = Imported(), Counter()
    options = settings(connection)
    with transaction(connection):
        for item in items:
            reason = problem(item)
            if reason:
                dropped[reason] += 1
                continue
            if gold and item.gold is None and item.opinions:
                item = _with_gold(item)
            item_id, is_new = add_item(connection, item, options, now)
            done.added += is_new
            done.there += not is_new
            done.opinions += sum(
                _add_opinion(connection, item_id, item, opinion, now) for opinion in item.opinions
            )
    done.dropped = dict(dropped)
    return done


def _with_gold(item: Item) -> Item:
    verdict = item.opinions[0].preference
    if verdict == "cannot_judge":
        return item
    return replace(item, gold=verdict)


def _add_opinion(
    connection: sqlite3.Connection, item_id: int, item: Item, opinion: Opinion, now: float
) -> bool:
    values = _columns(connection, item_id, item, opinion, now)
    done = connection.execute(
        f"INSERT INTO judgement ({', '.join(values)}) VALUES ({', '.join('?' * len(values))}) "
        "ON CONFLICT (item_id, annotator_id) DO NOTHING",
        list(values.values()),
    )
    return done.rowcount == 1


def _columns(
    connection: sqlite3.Connection, item_id: int, item: Item, opinion: Opinion, now: float
) -> dict[str, Any]:
    """The opinion as if the item's first answer had been shown on the left, unless it says so."""
    straight = in_stored_order(connection, item_id, item)
    left = opinion.left_position if straight else 1 - opinion.left_position
    sides = (0, 1) if opinion.left_position == 0 else (1, 0)
    letters = {"first": "ab"[sides[0]], "second": "ab"[sides[1]]}
    return {
        "item_id": item_id,
        "annotator_id": imported_account(connection, opinion.by, opinion.role, now),
        "left_position": left,
        "preference": letters.get(opinion.preference, opinion.preference),
        "strength": opinion.strength,
        "unsafe_a": int(bool(opinion.unsafe[sides[0]])),
        "unsafe_b": int(bool(opinion.unsafe[sides[1]])),
        "category_a": opinion.unsafe[sides[0]],
        "category_b": opinion.unsafe[sides[1]],
        "error_a": int(opinion.error[sides[0]]),
        "error_b": int(opinion.error[sides[1]]),
        "rationale": opinion.rationale,
        "correction": opinion.correction,
        "correction_base": letters.get(opinion.correction_base, ""),
        "wall_seconds": opinion.seconds,
        "saved_at": now,
    }


def import_file(
    connection: sqlite3.Connection,
    path: str | Path,
    now: float,
    form: str = "auto",
    name: str = "",
    pairs_per_prompt: int = 1,
    gold: bool = False,
) -> Imported:
    form = tell_form(path) if form == "auto" else form
    seed = settings(connection)["seed"]
    items = read_form(form, path, name, pairs_per_prompt, seed)
    return import_items(connection, items, now, gold)


def import_two_files(
    connection: sqlite3.Connection,
    first: str | Path,
    second: str | Path,
    now: float,
    models: tuple[str | None, str | None] = (None, None),
) -> Imported:
    return import_items(connection, read_two_files(first, second, models), now)
