"""How far the work is and how well the experts agree, from the database as it stands."""

import json
import sqlite3
from collections.abc import Callable, Iterable
from itertools import combinations
from typing import Any, Optional

from megatron_biollm.feedback.agreement import Estimate, alpha, kappa, share, text

# What two experts can agree on, as read from an opinion; None is a missing value.
Criterion = Callable[[sqlite3.Row], Optional[str]]


def _preference(row: sqlite3.Row) -> Optional[str]:
    return None if row["preference"] == "cannot_judge" else row["preference"]


# A criterion of answers is asked once for each of the two.
CRITERIA: dict[str, tuple[Criterion, ...]] = {
    "preference": (_preference,),
    "unsafe": (lambda row: str(row["unsafe_first"]), lambda row: str(row["unsafe_second"])),
    "factual error": (lambda row: str(row["error_first"]), lambda row: str(row["error_second"])),
}


def totals(connection: sqlite3.Connection) -> dict[str, int]:
    """Items, those with all their ratings, ratings, disputed items, items that were settled."""
    row = connection.execute("""
        SELECT count(*) AS items,
          coalesce(sum(ratings >= ratings_wanted), 0) AS complete,
          coalesce(sum(ratings_wanted = 2), 0) AS double_items,
          coalesce(sum(gold IS NOT NULL), 0) AS gold_items,
          coalesce(sum(ratings), 0) AS ratings
        FROM (SELECT item.*, (SELECT count(*) FROM opinion WHERE item_id = item.id
                AND role <> 'dataset' AND NOT adjudicates) AS ratings FROM item)
    """).fetchone()
    (disputed,) = connection.execute("SELECT count(*) FROM dispute").fetchone()
    (settled,) = connection.execute("SELECT count(*) FROM judgement WHERE adjudicates").fetchone()
    return {**dict(row), "disputed": disputed, "adjudicated": settled}


def own_counts(connection: sqlite3.Connection, annotator_id: int) -> dict[str, Any]:
    row = connection.execute(
        "SELECT count(*) AS saved, avg(coalesce(active_seconds, wall_seconds)) AS mean_seconds "
        "FROM judgement WHERE annotator_id = ?",
        [annotator_id],
    ).fetchone()
    return {**dict(row), "unfinished": len(unfinished_of(connection, annotator_id))}


def unfinished_of(connection: sqlite3.Connection, annotator_id: int) -> list[sqlite3.Row]:
    """Items with a draft, and those put off, latest first."""
    return connection.execute(
        "SELECT assignment.item_id, draft_at, skipped_at, prompt FROM assignment "
        "JOIN item ON item.id = item_id WHERE annotator_id = ? "
        "AND (draft IS NOT NULL OR skipped_at IS NOT NULL) "
        "ORDER BY coalesce(draft_at, skipped_at) DESC",
        [annotator_id],
    ).fetchall()


def judgements_of(
    connection: sqlite3.Connection, annotator_id: int, limit: int, offset: int
) -> list[sqlite3.Row]:
    return connection.execute(
        "SELECT judgement.*, prompt FROM judgement JOIN item ON item.id = item_id "
        "WHERE annotator_id = ? ORDER BY saved_at DESC LIMIT ? OFFSET ?",
        [annotator_id, limit, offset],
    ).fetchall()


def by_specialty(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    return _rows(
        connection,
        "SELECT specialty, count(DISTINCT annotator_id) AS annotators, count(*) AS judgements, "
        "count(DISTINCT item_id) AS items FROM opinion WHERE role <> 'dataset' "
        "GROUP BY specialty ORDER BY judgements DESC, specialty",
    )


def disputes(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """The adjudication queue, oldest first, with the reason of each item."""
    rows = _rows(
        connection,
        "SELECT dispute.*, prompt, key FROM dispute JOIN item ON item.id = item_id "
        "ORDER BY since, item_id",
    )
    for row in rows:
        reasons = {
            "preferences differ": row.pop("preferences_differ") and not row["could_not_judge"],
            "safety flags differ": row.pop("safety_differs"),
            "could not be judged": row.pop("could_not_judge"),
        }
        row["reasons"] = [reason for reason, holds in reasons.items() if holds]
        row["question"] = last_words(row.pop("prompt"))
    return rows


def last_words(prompt: str, longest: int = 160) -> str:
    """The start of the user's last message, on one line."""
    text = " ".join(json.loads(prompt)[-1]["content"].split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def report(connection: sqlite3.Connection, seed: int = 0) -> dict[str, Any]:
    """Everything the progress page shows: counts, gold accuracy, agreement with 95 % intervals."""
    opinions = connection.execute(
        "SELECT opinion.*, gold FROM opinion JOIN item ON item.id = item_id "
        "WHERE role = 'annotator' AND NOT adjudicates ORDER BY annotator_id, item_id"
    ).fetchall()
    return {
        "totals": totals(connection),
        "annotators": _annotators(connection, opinions),
        "specialties": by_specialty(connection),
        "criteria": {name: _criterion(opinions, parts, seed) for name, parts in CRITERIA.items()},
        "pairs": _pairs(opinions, seed),
        "left_share": _left_share(opinions),
        "categories": _categories(opinions),
    }


def table(found: dict[str, Any]) -> str:
    """A report as text."""
    totals = found["totals"]
    lines = [
        f"{totals['complete']} of {totals['items']} items have all their ratings "
        f"({totals['double_items']} want two); {totals['ratings']} judgements, "
        f"{totals['disputed']} wait for an adjudicator, {totals['adjudicated']} are settled"
    ]
    for row in found["annotators"]:
        gold = f", gold {text(row['gold'], '{:.0%}')} of {row['gold'].n}" if row["gold"].n else ""
        specialty = f" ({row['specialty']})" if row["specialty"] else ""
        lines.append(
            f"  {row['name']}{specialty}, {row['role']}: {row['judgements']} judgements{gold}"
        )
    for name, row in found["criteria"].items():
        lines.append(f"  {name}: alpha {text(row['alpha'])}, same {text(row['equal'], '{:.0%}')}")
    for pair in found["pairs"]:
        kappas = ", ".join(f"{name} {text(kappa)}" for name, kappa in pair["kappas"].items())
        lines.append(f"  kappa of {pair['first']} and {pair['second']}: {kappas}")
    lines.append(f"  left answer preferred: {text(found['left_share'], '{:.0%}')}")
    return "\n".join(lines)


def _annotators(
    connection: sqlite3.Connection, opinions: list[sqlite3.Row]
) -> list[dict[str, Any]]:
    rows = _rows(
        connection,
        "SELECT annotator.id, name, specialty, role, active, count(judgement.id) AS judgements, "
        "coalesce(sum(preference = 'cannot_judge'), 0) AS could_not_judge, "
        "avg(coalesce(active_seconds, wall_seconds)) AS mean_seconds, max(saved_at) AS last_saved "
        "FROM annotator LEFT JOIN judgement ON annotator_id = annotator.id "
        "GROUP BY annotator.id ORDER BY role, name",
    )
    for row in rows:
        own = [o for o in opinions if o["annotator_id"] == row["id"] and o["gold"] is not None]
        answered = [o for o in own if _preference(o) is not None]
        hits = sum(o["preference"] == o["gold"] for o in answered)
        row["gold"] = share(hits, len(answered))
    return rows


def _criterion(
    opinions: list[sqlite3.Row], parts: tuple[Criterion, ...], seed: int
) -> dict[str, Any]:
    """Alpha over all annotators, and the share of pairs of ratings that are equal."""
    table = _table(opinions, parts)
    equal = together = 0
    for first, second in combinations(table.values(), 2):
        shared = first.keys() & second.keys()
        together += len(shared)
        equal += sum(first[unit] == second[unit] for unit in shared)
    return {"alpha": alpha(_grid(table.values()), seed), "equal": share(equal, together)}


def _pairs(opinions: list[sqlite3.Row], seed: int) -> list[dict[str, Any]]:
    """Every two annotators with items in common, and their kappa on each criterion."""
    names = {row["annotator_id"]: row["name"] for row in opinions}
    tables = {name: _table(opinions, parts) for name, parts in CRITERIA.items()}
    pairs = []
    for first, second in combinations(names, 2):
        found = {
            name: kappa(*_grid([table.get(first, {}), table.get(second, {})]), seed)
            for name, table in tables.items()
        }
        if any(estimate.n for estimate in found.values()):
            pairs.append({"first": names[first], "second": names[second], "kappas": found})
    return pairs


def _table(
    opinions: Iterable[sqlite3.Row], parts: tuple[Criterion, ...]
) -> dict[int, dict[tuple[int, int], str]]:
    """For each annotator the values by unit, which is an item and the part asked."""
    table: dict[int, dict[tuple[int, int], str]] = {}
    for row in opinions:
        for number, ask in enumerate(parts):
            value = ask(row)
            if value is not None:
                table.setdefault(row["annotator_id"], {})[row["item_id"], number] = value
    return table


def _grid(rows: Iterable[dict]) -> list[list[Optional[str]]]:
    rows = list(rows)
    units = sorted({unit for row in rows for unit in row})
    return [[row.get(unit) for unit in units] for row in rows]


def _left_share(opinions: list[sqlite3.Row]) -> Estimate:
    """How often the answer on the left won: a half where the place has no influence."""
    won = [row["shown_preference"] for row in opinions if row["shown_preference"] in ("a", "b")]
    return share(won.count("a"), len(won))


def _categories(opinions: list[sqlite3.Row]) -> dict[str, int]:
    """How often each kind of harm was flagged, most frequent first."""
    found: dict[str, int] = {}
    for row in opinions:
        for side in ("first", "second"):
            if row[f"category_{side}"]:
                found[row[f"category_{side}"]] = found.get(row[f"category_{side}"], 0) + 1
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _rows(connection: sqlite3.Connection, query: str) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(query)]
