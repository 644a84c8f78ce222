"""One expert's judgement of one item: read from a form, checked, saved once, changed openly."""

import json
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Optional

from megatron_biollm.feedback.accounts import is_adjudicator
from megatron_biollm.feedback.database import transaction
from megatron_biollm.feedback.desk import assignment
from megatron_biollm.feedback.words import (
    CATEGORIES,
    LONGEST_CORRECTION,
    LONGEST_RATIONALE,
    PREFERENCES,
    STRENGTHS,
)

# What a form and a draft hold, all of it text; a box that is not ticked is absent.
FIELDS = (
    "preference", "strength", "unsafe_a", "unsafe_b", "category_a", "category_b", "error_a",
    "error_b", "rationale", "correction", "correction_base",
)  # fmt: skip
# What no database or page can hold: NUL, and halves of characters.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True)
class Judgement:
    """a is the answer that was shown on the left, b the other.

    preference: a key of PREFERENCES. strength: 1 to 3, for a or b alone.
    category_a, category_b: a key of CATEGORIES where the answer is unsafe, else empty.
    error_a, error_b: the answer states something wrong.
    correction: a better answer; correction_base: a or b where it was made from one of them.
    """

    preference: str
    strength: Optional[int] = None
    unsafe_a: bool = False
    unsafe_b: bool = False
    category_a: str = ""
    category_b: str = ""
    error_a: bool = False
    error_b: bool = False
    rationale: str = ""
    correction: str = ""
    correction_base: str = ""


@dataclass(frozen=True)
class Saved:
    """extra: others had given the item all the ratings it wanted. overtaken: another adjudicator
    had settled it, so that this is kept as one more opinion."""

    revision: int
    extra: bool = False
    overtaken: bool = False


class Overtaken(Exception):
    """The annotator saved the same item elsewhere after this page was opened.

    current: the judgement that is there. revision: its number.
    """

    def __init__(self, current: Judgement, revision: int, saved_at: float):
        super().__init__("this item was saved in another window meanwhile")
        self.current, self.revision, self.saved_at = current, revision, saved_at


class NotAssigned(Exception):
    """The item was never on this annotator's desk."""


def storable(text: str) -> str:
    return _UNSTORABLE.sub("\ufffd", text)


def read_draft(form: Mapping[str, str]) -> dict[str, str]:
    """The known fields that are filled in, with line ends as typed on any system."""
    found = {name: storable(form.get(name, "")).replace("\r\n", "\n") for name in FIELDS}
    return {name: text for name, text in found.items() if text}


def check(draft: Mapping[str, str]) -> tuple[Optional[Judgement], dict[str, str]]:
    """The judgement, or None and what to mend, by field."""
    problems = dict(_problems(draft))
    if problems:
        return None, problems
    preferred = draft["preference"] in ("a", "b")
    unsafe = {side: _unsafe(draft, side) for side in "ab"}
    return Judgement(
        preference=draft["preference"],
        strength=int(draft["strength"]) if preferred else None,
        unsafe_a=unsafe["a"],
        unsafe_b=unsafe["b"],
        category_a=draft.get("category_a", ""),
        category_b=draft.get("category_b", ""),
        error_a="error_a" in draft,
        error_b="error_b" in draft,
        rationale=draft.get("rationale", "").strip(),
        correction=draft.get("correction", "").strip(),
        correction_base=draft.get("correction_base", "") if draft.get("correction") else "",
    ), {}


def _unsafe(draft: Mapping[str, str], side: str) -> bool:
    return f"unsafe_{side}" in draft or bool(draft.get(f"category_{side}"))


def _problems(draft: Mapping[str, str]):
    preference = draft.get("preference", "")
    if preference not in PREFERENCES:
        yield "preference", "Say which answer is better, or one of the other three."
    if preference in ("a", "b") and draft.get("strength") not in map(str, STRENGTHS):
        yield "strength", "Say how much better it is."
    for side in "ab":
        category = draft.get(f"category_{side}", "")
        if (_unsafe(draft, side) and not category) or category not in ("", *CATEGORIES):
            yield f"category_{side}", f"Say what is unsafe in answer {side.upper()}."
        if preference == "both_unsafe" and not _unsafe(draft, side):
            yield f"category_{side}", f"Both are unsafe: say what is unsafe in {side.upper()}."
    if draft.get("correction_base", "") not in ("", "a", "b"):
        yield "correction_base", "The corrected answer comes from A, from B, or is your own."
    for name, longest in (("rationale", LONGEST_RATIONALE), ("correction", LONGEST_CORRECTION)):
        if len(draft.get(name, "")) > longest:
            yield name, f"This text has more than {longest:,} characters; shorten it."


def as_draft(judgement: Judgement) -> dict[str, str]:
    """The form that says the same."""
    values = {name: value for name, value in asdict(judgement).items() if value}
    return {name: "1" if value is True else str(value) for name, value in values.items()}


def current(
    connection: sqlite3.Connection, item_id: int, annotator_id: int
) -> Optional[tuple[Judgement, sqlite3.Row]]:
    """What the annotator has said of the item, and its row."""
    row = connection.execute(
        "SELECT * FROM judgement WHERE item_id = ? AND annotator_id = ?", [item_id, annotator_id]
    ).fetchone()
    if row is None:
        return None
    flags = ("unsafe_a", "unsafe_b", "error_a", "error_b")
    values = {name: bool(row[name]) if name in flags else row[name] for name in FIELDS}
    return Judgement(**values), row


def save(
    connection: sqlite3.Connection,
    item_id: int,
    annotator: sqlite3.Row,
    judgement: Judgement,
    *,
    revision: int,
    now: float,
    active_s: Optional[float] = None,
) -> Saved:
    """Saves a judgement; one that is there already must be the one that was changed.

    revision: of the judgement that the page was opened on, 0 for none.
    active_s: seconds that the page was in front, as the browser counted them.

    Raises:
        Overtaken: it was saved elsewhere meanwhile, and differently.
        NotAssigned: the item was never on this annotator's desk.
    """
    with transaction(connection):
        place = assignment(connection, item_id, annotator["id"])
        if place is None:
            raise NotAssigned
        found = current(connection, item_id, annotator["id"])
        if found is not None and found[0] == judgement:
            _clear_draft(connection, item_id, annotator["id"], now)
            return Saved(found[1]["revision"])
        if (found[1]["revision"] if found else 0) != revision:
            old, row = found or (judgement, {"revision": 0, "saved_at": now})
            raise Overtaken(old, row["revision"], row["saved_at"])
        saved = _write(connection, place, annotator, judgement, found, now, active_s)
        _clear_draft(connection, item_id, annotator["id"], now)
    return saved


def _write(
    connection: sqlite3.Connection,
    place: sqlite3.Row,
    annotator: sqlite3.Row,
    judgement: Judgement,
    found: Optional[tuple[Judgement, sqlite3.Row]],
    now: float,
    active_s: Optional[float],
) -> Saved:
    wall_s = max(0.0, now - place["opened_at"])
    values = {
        **asdict(judgement),
        "saved_at": now,
        "wall_seconds": wall_s,
        "active_seconds": None if active_s is None else min(max(active_s, 0.0), wall_s),
    }
    if found is not None:
        return _replace(connection, found, values)
    settled = _is_settled(connection, place["item_id"])
    extra = _ratings_left(connection, place["item_id"]) <= 0
    adjudicates = is_adjudicator(annotator) and not settled
    values |= {
        "item_id": place["item_id"],
        "annotator_id": annotator["id"],
        "left_position": place["left_position"],
        "adjudicates": int(adjudicates),
    }
    connection.execute(
        f"INSERT INTO judgement ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
        list(values.values()),
    )
    if is_adjudicator(annotator):
        return Saved(1, overtaken=settled)
    return Saved(1, extra=extra)


def _replace(
    connection: sqlite3.Connection, found: tuple[Judgement, sqlite3.Row], values: dict[str, Any]
) -> Saved:
    """Time spent stays that of the first judgement; the earlier words are kept."""
    old, row = found
    connection.execute(
        "INSERT INTO earlier_judgement VALUES (?, ?, ?, ?)",
        [row["id"], row["revision"], json.dumps(asdict(old)), values["saved_at"]],
    )
    changed = {n: v for n, v in values.items() if n not in ("wall_seconds", "active_seconds")}
    changed["revision"] = row["revision"] + 1
    connection.execute(
        f"UPDATE judgement SET {', '.join(f'{name} = ?' for name in changed)} WHERE id = ?",
        [*changed.values(), row["id"]],
    )
    return Saved(changed["revision"])


def _is_settled(connection: sqlite3.Connection, item_id: int) -> bool:
    row = connection.execute(
        "SELECT 1 FROM judgement WHERE item_id = ? AND adjudicates", [item_id]
    ).fetchone()
    return row is not None


def _ratings_left(connection: sqlite3.Connection, item_id: int) -> int:
    (left,) = connection.execute(
        "SELECT iif(gold IS NULL, ratings_wanted, 1000000) - (SELECT count(*) FROM opinion "
        "WHERE item_id = item.id AND role <> 'dataset') FROM item WHERE id = ?",
        [item_id],
    ).fetchone()
    return left


def _clear_draft(
    connection: sqlite3.Connection, item_id: int, annotator_id: int, now: float
) -> None:
    connection.execute(
        "UPDATE assignment SET draft = NULL, draft_number = 0, draft_at = NULL, skipped_at = NULL, "
        "leased_until = ? WHERE item_id = ? AND annotator_id = ?",
        [now, item_id, annotator_id],
    )
