"""Which item lies on whose desk: assignment, lease, the stored order of answers, drafts."""

import json
import sqlite3
from typing import Any, Optional

from megatron_biollm.feedback.accounts import is_adjudicator
from megatron_biollm.feedback.database import settings, transaction
from megatron_biollm.feedback.items import fraction

# An item is open to an annotator while it lacks ratings, counting those that others are at.
_OPEN = """
SELECT item.id FROM item
WHERE NOT EXISTS (SELECT 1 FROM assignment WHERE item_id = item.id AND annotator_id = :me)
  AND NOT EXISTS (SELECT 1 FROM judgement WHERE item_id = item.id AND annotator_id = :me)
  AND (gold IS NOT NULL OR ratings_wanted > (
    SELECT count(*) FROM judgement JOIN annotator ON annotator.id = annotator_id
    WHERE item_id = item.id AND role <> 'dataset'
  ) + (
    SELECT count(*) FROM assignment AS other
    WHERE other.item_id = item.id AND other.leased_until > :now AND other.skipped_at IS NULL
      AND NOT EXISTS (SELECT 1 FROM judgement AS done WHERE done.item_id = item.id
                      AND done.annotator_id = other.annotator_id)
  ))
ORDER BY
  CASE specialty WHEN '' THEN 1 WHEN :specialty THEN 0 ELSE 2 END,
  -- Exclusive or: another order for each annotator.
  (shuffle | :salt) - (shuffle & :salt)
LIMIT 1
"""
_DISPUTED = """
SELECT item_id AS id FROM dispute
WHERE NOT EXISTS (SELECT 1 FROM judgement
                  WHERE judgement.item_id = dispute.item_id AND annotator_id = :me)
  AND NOT EXISTS (SELECT 1 FROM assignment
                  WHERE assignment.item_id = dispute.item_id AND annotator_id = :me)
  AND NOT EXISTS (SELECT 1 FROM assignment AS other JOIN annotator ON annotator.id = annotator_id
                  WHERE other.item_id = dispute.item_id AND role = 'adjudicator'
                    AND other.leased_until > :now AND other.skipped_at IS NULL)
ORDER BY since, id
LIMIT 1
"""
# What is on the desk already: drafts and what was opened last first, what was put off last.
_BEGUN = """
SELECT assignment.item_id AS id, draft, skipped_at, leased_until FROM assignment
WHERE annotator_id = :me
  AND NOT EXISTS (SELECT 1 FROM judgement WHERE judgement.item_id = assignment.item_id
                  AND judgement.annotator_id = assignment.annotator_id)
ORDER BY skipped_at IS NOT NULL, skipped_at, opened_at DESC
"""


def next_item(connection: sqlite3.Connection, annotator: sqlite3.Row, now: float) -> Optional[int]:
    """The item to go on with: one begun, then a new one, then those put off; None when all is done.

    Of two annotators who ask at once, each is given what the other leaves.
    """
    with transaction(connection):
        _clear_desk(connection, annotator, now)
        begun = connection.execute(_BEGUN, {"me": annotator["id"]}).fetchall()
        unfinished = [row["id"] for row in begun if row["skipped_at"] is None]
        found = unfinished[0] if unfinished else _new_item(connection, annotator, now)
        if found is None and begun:
            found = begun[0]["id"]
        if found is not None:
            _lease(connection, found, annotator, now)
    return found


def _clear_desk(connection: sqlite3.Connection, annotator: sqlite3.Row, now: float) -> None:
    """Takes away what others have finished meanwhile and nothing was typed for."""
    waiting = "SELECT item_id FROM dispute" if is_adjudicator(annotator) else _LACKING
    connection.execute(
        f"DELETE FROM assignment WHERE annotator_id = ? AND draft IS NULL AND leased_until < ? "
        f"AND item_id NOT IN ({waiting}) AND NOT EXISTS (SELECT 1 FROM judgement "
        "WHERE judgement.item_id = assignment.item_id AND annotator_id = assignment.annotator_id)",
        [annotator["id"], now],
    )


_LACKING = """
SELECT item.id FROM item WHERE gold IS NOT NULL OR ratings_wanted > (
  SELECT count(*) FROM judgement JOIN annotator ON annotator.id = annotator_id
  WHERE item_id = item.id AND role <> 'dataset')
"""


def _new_item(connection: sqlite3.Connection, annotator: sqlite3.Row, now: float) -> Optional[int]:
    query = _DISPUTED if is_adjudicator(annotator) else _OPEN
    values = {
        "me": annotator["id"],
        "now": now,
        "specialty": annotator["specialty"],
        "salt": annotator["salt"],
    }
    row = connection.execute(query, values).fetchone()
    return row["id"] if row else None


def _lease(
    connection: sqlite3.Connection, item_id: int, annotator: sqlite3.Row, now: float
) -> None:
    options = settings(connection)
    until = now + 60 * options["lease_minutes"]
    (key,) = connection.execute("SELECT key FROM item WHERE id = ?", [item_id]).fetchone()
    left = int(fraction(options["seed"], f"left/{annotator['name'].casefold()}", key) < 0.5)
    connection.execute(
        "INSERT INTO assignment (item_id, annotator_id, left_position, opened_at, leased_until) "
        "VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET leased_until = excluded.leased_until, "
        "skipped_at = NULL",
        [item_id, annotator["id"], left, now, until],
    )


def assignment(
    connection: sqlite3.Connection, item_id: int, annotator_id: int
) -> Optional[sqlite3.Row]:
    return connection.execute(
        "SELECT * FROM assignment WHERE item_id = ? AND annotator_id = ?", [item_id, annotator_id]
    ).fetchone()


def save_draft(
    connection: sqlite3.Connection,
    item_id: int,
    annotator_id: int,
    draft: dict[str, str],
    *,
    number: int,
    revision: int,
    now: float,
) -> bool:
    """Keeps what was typed so far; False where something newer is there.

    number: counts the drafts of a page; one that was overtaken on its way is left out.
    revision: of the judgement that the page was opened on, 0 for none.
    """
    until = now + 60 * settings(connection)["lease_minutes"]
    with transaction(connection):
        if _revision(connection, item_id, annotator_id) != revision:
            return False
        done = connection.execute(
            "UPDATE assignment SET draft = ?, draft_number = ?, draft_at = ?, skipped_at = NULL, "
            "leased_until = ? WHERE item_id = ? AND annotator_id = ? AND draft_number <= ?",
            [json.dumps(draft), number, now, until, item_id, annotator_id, number],
        )
    return done.rowcount == 1


def _revision(connection: sqlite3.Connection, item_id: int, annotator_id: int) -> int:
    row = connection.execute(
        "SELECT revision FROM judgement WHERE item_id = ? AND annotator_id = ?",
        [item_id, annotator_id],
    ).fetchone()
    return row["revision"] if row else 0


def put_off(connection: sqlite3.Connection, item_id: int, annotator_id: int, now: float) -> None:
    """Gives the item back for now; what was typed stays."""
    with transaction(connection):
        connection.execute(
            "UPDATE assignment SET skipped_at = ?, leased_until = ? "
            "WHERE item_id = ? AND annotator_id = ?",
            [now, now, item_id, annotator_id],
        )


def pair(connection: sqlite3.Connection, item_id: int, left_position: int) -> dict[str, Any]:
    """What a page may show of an item: no model, no source, no gold verdict."""
    item = connection.execute(
        "SELECT id, prompt, specialty FROM item WHERE id = ?", [item_id]
    ).fetchone()
    texts = connection.execute(
        "SELECT text FROM answer WHERE item_id = ? ORDER BY position", [item_id]
    ).fetchall()
    left, right = (texts[place]["text"] for place in (left_position, 1 - left_position))
    return {
        "id": item["id"],
        "prompt": json.loads(item["prompt"]),
        "specialty": item["specialty"],
        "answers": {"a": left, "b": right},
    }
