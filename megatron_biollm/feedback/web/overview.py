"""Home, an annotator's own judgements, progress and agreement, the adjudicators' queue."""

from flask import Blueprint, abort, g, render_template, request

from megatron_biollm.feedback import progress
from megatron_biollm.feedback.accounts import is_adjudicator
from megatron_biollm.feedback.database import settings
from megatron_biollm.feedback.web.context import database

pages = Blueprint("overview", __name__)
_ROWS = 50


@pages.get("/")
def home():
    own = progress.own_counts(database(), g.annotator["id"])
    return render_template(
        "home.html",
        own=own,
        totals=progress.totals(database()),
        instructions=settings(database())["instructions"],
    )


@pages.get("/mine")
def mine():
    page = max(1, request.args.get("page", 1, int))
    rows = progress.judgements_of(database(), g.annotator["id"], _ROWS + 1, (page - 1) * _ROWS)
    return render_template(
        "mine.html",
        rows=rows[:_ROWS],
        page=page,
        more=len(rows) > _ROWS,
        waiting=progress.unfinished_of(database(), g.annotator["id"]),
    )


@pages.get("/progress")
def show_progress():
    """All figures for adjudicators; the others see how far the work is and their own part, since
    knowing colleagues' agreement or the gold items would change what they say."""
    if is_adjudicator(g.annotator):
        return render_template("progress.html", report=progress.report(database()))
    return render_template(
        "progress_own.html",
        totals=progress.totals(database()),
        specialties=progress.by_specialty(database()),
        own=progress.own_counts(database(), g.annotator["id"]),
    )


@pages.get("/adjudication")
def adjudication():
    if not is_adjudicator(g.annotator):
        abort(403)
    rows = progress.disputes(database())
    return render_template("adjudication.html", rows=rows[:_ROWS], total=len(rows))
