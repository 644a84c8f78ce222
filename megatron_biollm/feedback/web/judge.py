"""The page on which an expert compares two answers."""

import json
import sqlite3
from collections.abc import Mapping
from typing import Any, Optional

from flask import Blueprint, abort, flash, g, jsonify, redirect, render_template, request, url_for

from megatron_biollm.feedback import desk, judging
from megatron_biollm.feedback.accounts import is_adjudicator
from megatron_biollm.feedback.web.context import database, now

pages = Blueprint("judge", __name__)


@pages.get("/next")
def next_item():
    item_id = desk.next_item(database(), g.annotator, now())
    if item_id is None:
        return render_template("all_done.html")
    return redirect(url_for("judge.item", item_id=item_id))


@pages.get("/item/<int:item_id>")
def item(item_id: int):
    place = _place(item_id)
    found = judging.current(database(), item_id, g.annotator["id"])
    draft = json.loads(place["draft"]) if place["draft"] else None
    if draft is None:
        draft = judging.as_draft(found[0]) if found else {}
    return _page(place, draft, found[1]["revision"] if found else 0)


@pages.post("/item/<int:item_id>")
def save(item_id: int):
    place = _place(item_id)
    draft, revision = judging.read_draft(request.form), _number("revision")
    action = request.form.get("action", "save")
    if action in ("draft", "later"):
        return _keep(place, draft, revision, action)
    judgement, problems = judging.check(draft)
    if judgement is None:
        return _page(place, draft, revision, problems=problems), 422
    try:
        saved = judging.save(
            database(), item_id, g.annotator, judgement,
            revision=revision, now=now(), active_s=_active_s(),
        )  # fmt: skip
    except judging.Overtaken as error:
        return _page(place, draft, error.revision, overtaken=error), 409
    _say(saved)
    return redirect(url_for("overview.mine" if revision else "judge.next_item"))


@pages.post("/item/<int:item_id>/draft")
def draft(item_id: int):
    """For the script: keeps what was typed so far."""
    _place(item_id)
    kept = _save_draft(item_id, judging.read_draft(request.form), _number("revision"), 0)
    return jsonify(kept=kept)


def _keep(place: sqlite3.Row, draft: dict[str, str], revision: int, action: str) -> Any:
    kept = _save_draft(place["item_id"], draft, revision, 1)
    if not kept:
        flash("This item is open in another window with newer text, which was kept instead.")
    elif action == "draft":
        flash("Your draft is kept.")
    if action == "draft":
        return redirect(url_for("judge.item", item_id=place["item_id"]))
    desk.put_off(database(), place["item_id"], g.annotator["id"], now())
    flash("Put off: it comes back after the other items, with what you typed.")
    return redirect(url_for("judge.next_item"))


def _save_draft(item_id: int, draft: dict[str, str], revision: int, more: int) -> bool:
    if (seconds := _active_s()) is not None:
        draft = {**draft, "active_s": f"{seconds:.0f}"}
    number = _number("draft_number") + more
    return desk.save_draft(
        database(), item_id, g.annotator["id"], draft, number=number, revision=revision, now=now()
    )


def _say(saved: judging.Saved) -> None:
    if saved.overtaken:
        flash(
            "Another adjudicator settled this item while you worked on it. Your judgement is kept "
            "beside theirs as one more opinion."
        )
    elif saved.extra:
        flash(
            "Saved. A colleague finished the same item while you worked on it; both judgements "
            "are kept."
        )
    else:
        flash("Saved.")


def _place(item_id: int) -> sqlite3.Row:
    place = desk.assignment(database(), item_id, g.annotator["id"])
    # A page of the annotator who was logged in before must not speak for this one.
    if place is None or request.form.get("who", str(g.annotator["id"])) != str(g.annotator["id"]):
        abort(404)
    return place


def _page(
    place: sqlite3.Row,
    draft: Mapping[str, str],
    revision: int,
    problems: Optional[dict[str, str]] = None,
    overtaken: Optional[judging.Overtaken] = None,
) -> str:
    return render_template(
        "item.html",
        pair=desk.pair(database(), place["item_id"], place["left_position"]),
        draft=draft,
        has_draft=bool(place["draft"]),
        draft_number=max(place["draft_number"], _number("draft_number")),
        draft_at=place["draft_at"],
        revision=revision,
        problems=problems or {},
        overtaken=overtaken,
        opinions=_opinions(place) if is_adjudicator(g.annotator) else [],
    )


def _opinions(place: sqlite3.Row) -> list[dict[str, Any]]:
    """What the experts said before, without names, in the order of answers shown here."""
    rows = database().execute(
        "SELECT * FROM opinion WHERE item_id = ? AND annotator_id <> ? AND role <> 'dataset' "
        "ORDER BY saved_at",
        [place["item_id"], g.annotator["id"]],
    )
    sides = ("first", "second") if place["left_position"] == 0 else ("second", "first")
    letters = {sides[0]: "a", sides[1]: "b"}
    return [
        {
            **dict(row),
            "preference": letters.get(row["preference"], row["preference"]),
            "correction_base": letters.get(row["correction_base"], ""),
            "flags": {
                letters[side]: (row[f"category_{side}"], bool(row[f"error_{side}"]))
                for side in sides
            },
        }
        for row in rows
    ]


def _number(name: str) -> int:
    text = request.form.get(name, "0")
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _active_s() -> Optional[float]:
    text = request.form.get("active_s", "")
    return float(text) if text.isdecimal() and len(text) < 8 else None
