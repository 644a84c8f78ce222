"""Pages for what goes wrong, which hand back everything that was typed."""

import sqlite3
from typing import Any

from flask import Flask, Response, flash, g, jsonify, redirect, render_template, request, url_for
from werkzeug.exceptions import HTTPException

from megatron_biollm.feedback.judging import LONGEST_CORRECTION, read_draft
from megatron_biollm.feedback.web.access import LoggedOut, StaleForm, WrongName
from megatron_biollm.log import get_logger

_WORDS = {
    403: "This page is not for your role.",
    404: "There is no such page, or the item is not on your desk.",
    405: "This address takes no such request.",
    413: f"That is too long to store: at most {LONGEST_CORRECTION:,} characters a text.",
}


def register(app: Flask) -> None:
    app.register_error_handler(LoggedOut, _logged_out)
    app.register_error_handler(StaleForm, _stale)
    app.register_error_handler(sqlite3.Error, _database)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(500, _unknown)


def _logged_out(_: LoggedOut) -> Any:
    if _is_script():
        return jsonify(problem="You are logged out."), 401
    if request.method == "POST" and _typed():
        return _try_again(
            "You are logged out",
            "Your session has ended. Log in again in a new tab, come back to this page and press "
            "“Try again”.",
            401,
        )
    if request.path != "/":
        flash("Please log in.")
    return redirect(url_for("access.log_in"))


def _stale(_: StaleForm) -> Any:
    if _is_script():
        return jsonify(problem="This page is out of date; save, or reload it."), 400
    if g.annotator is not None and _typed():
        return _try_again(
            "This page was out of date",
            "It was opened in an earlier session, so nothing has been saved yet. Press “Try again” "
            "to save it now.",
            400,
        )
    return _problem("This page is out of date", "Please go back, reload it and try again.", 400)


def _database(error: sqlite3.Error) -> Any:
    get_logger(__name__).error("%s %s: %s", request.method, request.path, error)
    title, words = _explain(str(error))
    if _is_script():
        return jsonify(problem=title), 503
    if request.method == "POST" and _typed():
        return _try_again(title, f"{words} Nothing you typed is lost: it is below.", 503)
    return _problem(title, f"{words} Reload this page in a moment.", 503)


def _explain(error: str) -> tuple[str, str]:
    if "locked" in error:
        return "The database is busy", "Another program is writing to it at this moment."
    if "full" in error or "disk I/O" in error:
        return "The disk is full", "The administrator has to free some space on the server."
    if "readonly" in error or "unable to open" in error:
        return "The database cannot be written", "The administrator has to look at its folder."
    return "The database has a problem", "The administrator finds the reason in the server's log."


def _http(error: HTTPException) -> Any:
    if isinstance(error, WrongName):
        return Response("This server does not go by that name (--name adds one).\n", 400)
    words = _WORDS.get(error.code, error.description or error.name)
    if _is_script():
        return jsonify(problem=words), error.code
    return _problem(error.name, words, error.code or 500)


def _unknown(error: Exception) -> Any:
    original = getattr(error, "original_exception", None) or error
    get_logger(__name__).error("%s %s", request.method, request.path, exc_info=original)
    if request.method == "POST" and not _is_script() and _typed():
        return _try_again("Something went wrong", "The reason is in the server's log.", 500)
    return _problem("Something went wrong", "The reason is in the server's log.", 500)


def _is_script() -> bool:
    return request.headers.get("X-Requested-With") == "script"


def _typed() -> dict[str, str]:
    return read_draft(request.form)


def _try_again(title: str, words: str, status: int) -> Response:
    """The form once more, to be sent to the same address."""
    kept = {n: v for n, v in request.form.items() if n not in ("csrf_token", "action")}
    page = render_template(
        "try_again.html", problem=title, words=words, typed=_typed(), kept=kept,
        action=request.form.get("action", "save"), address=request.path,
    )  # fmt: skip
    return Response(page, status, {"Retry-After": "5"} if status == 503 else None)


def _problem(title: str, words: str, status: int) -> Response:
    return Response(render_template("problem.html", problem=title, words=words), status)
