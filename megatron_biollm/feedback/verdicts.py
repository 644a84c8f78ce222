"""What the experts said of each item taken together, and which items an export takes."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

from megatron_biollm.config import UserError
from megatron_biollm.feedback.words import DATASET

SIDES = ("first", "second")


@dataclass(frozen=True)
class Filters:
    """Which items and opinions count.

    min_agreement: share of the deciding opinions that hold the verdict, 0 to 1; an adjudicator's
        word is full agreement.
    min_judgements: opinions that an item needs, those that could not judge left out.
    specialties: of the experts; empty takes all.
    adjudicated: only items that an adjudicator settled.
    allow_unsafe: also chosen answers that somebody flagged as unsafe.
    with_gold: also items that serve to check the annotators.
    with_datasets: also the preferences that imported data sets came with.
    """

    min_agreement: float = 0.6
    min_judgements: int = 1
    specialties: tuple[str, ...] = ()
    adjudicated: bool = False
    allow_unsafe: bool = False
    with_gold: bool = False
    with_datasets: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.min_agreement <= 1:
            raise UserError(
                f"min_agreement is {self.min_agreement}, but it is a share; give 0 to 1"
            )
        if self.min_judgements < 1:
            raise UserError(f"min_judgements is {self.min_judgements}; give 1 or more")


@dataclass(frozen=True)
class Verdict:
    """An item with what was said of it.

    preference: first, second, tie, both_unsafe, or None where there is no majority.
    agreement: share of the deciding opinions behind it. margin: mean strength, 1 to 3, of those.
    unsafe: whether anybody (or the adjudicator, where there is one) flagged each answer.
    corrections: text and the side it was made from, or an empty one.
    """

    item_id: int
    key: str
    prompt: list[dict[str, str]]
    texts: tuple[str, str]
    models: tuple[str, str]
    source: str
    external_id: str
    meta: dict[str, Any]
    preference: Optional[str]
    agreement: Optional[float]
    margin: Optional[float]
    judgements: int
    adjudicated: bool
    unsafe: tuple[bool, bool]
    specialties: tuple[str, ...]
    corrections: tuple[tuple[str, str], ...] = ()


@dataclass
class Counts:
    """left_out: reason to number of items."""

    items: int = 0
    left_out: Counter = field(default_factory=Counter)


def verdicts(connection: sqlite3.Connection, filters: Filters, counts: Counts) -> Iterator[Verdict]:
    """Items with at least one opinion that counts, in the order of their import."""
    for item in connection.execute("SELECT * FROM item ORDER BY id"):
        if item["gold"] is not None and not filters.with_gold:
            counts.left_out["gold item"] += 1
            continue
        opinions = [o for o in _opinions(connection, item["id"]) if _counts(o, filters)]
        if not opinions:
            counts.left_out["not judged"] += 1
        elif filters.adjudicated and not any(o["adjudicates"] for o in opinions):
            counts.left_out["not adjudicated"] += 1
        else:
            counts.items += 1
            yield _verdict(connection, item, opinions)


def _opinions(connection: sqlite3.Connection, item_id: int) -> list[sqlite3.Row]:
    return connection.execute(
        "SELECT * FROM opinion WHERE item_id = ? ORDER BY saved_at, id", [item_id]
    ).fetchall()


def _counts(opinion: sqlite3.Row, filters: Filters) -> bool:
    if opinion["role"] == DATASET:
        return filters.with_datasets
    wanted = {specialty.casefold() for specialty in filters.specialties}
    return not wanted or opinion["specialty"].casefold() in wanted


def _verdict(
    connection: sqlite3.Connection, item: sqlite3.Row, opinions: list[sqlite3.Row]
) -> Verdict:
    settled = [o for o in opinions if o["adjudicates"]]
    deciding = [o for o in settled or opinions if o["preference"] != "cannot_judge"]
    preference, agreement = majority([o["preference"] for o in deciding])
    strengths = [o["strength"] for o in deciding if o["preference"] == preference and o["strength"]]
    answers = connection.execute(
        "SELECT model, text FROM answer WHERE item_id = ? ORDER BY position", [item["id"]]
    ).fetchall()
    return Verdict(
        item_id=item["id"],
        key=item["key"],
        prompt=json.loads(item["prompt"]),
        texts=tuple(row["text"] for row in answers),
        models=tuple(row["model"] for row in answers),
        source=item["source"],
        external_id=item["external_id"],
        meta=json.loads(item["meta"]),
        preference=preference,
        agreement=agreement,
        margin=sum(strengths) / len(strengths) if strengths else None,
        judgements=sum(o["preference"] != "cannot_judge" for o in opinions),
        adjudicated=bool(settled),
        unsafe=tuple(any(o[f"unsafe_{side}"] for o in settled or opinions) for side in SIDES),
        specialties=tuple(sorted({o["specialty"] for o in opinions if o["specialty"]})),
        corrections=tuple(
            (o["correction"], o["correction_base"]) for o in settled or opinions if o["correction"]
        ),
    )


def majority(votes: list[str]) -> tuple[Optional[str], Optional[float]]:
    """The verdict with most votes and its share; None for it where two have as many."""
    if not votes:
        return None, None
    ranked = Counter(votes).most_common()
    share = ranked[0][1] / len(votes)
    if len(ranked) > 1 and ranked[1][1] == ranked[0][1]:
        return None, share
    return ranked[0][0], share
