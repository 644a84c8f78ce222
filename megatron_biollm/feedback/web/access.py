"""Who is asking: log in and out, a new password, and a token in every form."""

import hmac
import re
import secrets
from typing import Any, Optional

from flask import (
    Blueprint,
    current_app,
    flash,
    g,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from werkzeug.exceptions import BadRequest

from megatron_biollm.config import UserError
from megatron_biollm.feedback import accounts
from megatron_biollm.feedback.web.context import database, now

pages = Blueprint("access", __name__)
_OPEN_TO_ALL = {"access.log_in", "access.do_log_in", "static"}


class StaleForm(BadRequest):
    """The form's token is not that of the session: an old page, or another site's."""


class WrongName(BadRequest):
    """The address bar names a host that is not this server: another site may point here."""


class LoggedOut(Exception):
    """A page for annotators was asked for without a session, or with one that has ended."""


def csrf_token() -> str:
    if "csrf" not in session:
        session["csrf"] = secrets.token_urlsafe(32)
    return session["csrf"]


def check() -> None:
    """Before every request: finds the annotator, and compares the token of what changes things.

    Raises:
        WrongName, LoggedOut, StaleForm.
    """
    g.annotator = None
    hosts = current_app.config["HOSTS"]
    if "*" not in hosts and _host() not in hosts:
        raise WrongName
    if request.endpoint == "static":
        return
    g.annotator = _annotator()
    if g.annotator is None and request.endpoint not in _OPEN_TO_ALL:
        raise LoggedOut
    if request.method not in ("GET", "HEAD", "OPTIONS"):
        given = request.headers.get("X-CSRF-Token") or request.form.get("csrf_token", "")
        if not hmac.compare_digest(given.encode(), csrf_token().encode()):
            raise StaleForm


def _host() -> str:
    """The name in the address bar, without the port. Werkzeug's own check knows no IPv6."""
    return re.sub(r":\d+$", "", request.host).lower()


def _annotator() -> Optional[Any]:
    if "annotator" not in session:
        return None
    row = accounts.annotator(database(), session["annotator"])
    if row is None or row["session_version"] != session.get("version"):
        session.clear()
        return None
    return row


@pages.get("/login")
def log_in():
    if g.annotator is not None:
        return redirect(url_for("overview.home"))
    return render_template("login.html")


@pages.post("/login")
def do_log_in():
    name = " ".join(request.form.get("name", "").split())
    password = request.form.get("password", "")
    try:
        row = accounts.log_in(database(), name, password, _address(), now())
    except accounts.TooManyAttempts as error:
        minutes = int(error.wait_s // 60) + 1
        problem = f"Too many failed attempts. Try again in {minutes} minutes, or ask for a new one."
        page = render_template("login.html", name=name, problem=problem)
        return page, 429, {"Retry-After": str(int(error.wait_s) + 1)}
    if row is None:
        return render_template("login.html", name=name, problem="Wrong name or password."), 401
    session.clear()
    session.permanent = True
    session["annotator"], session["version"] = row["id"], row["session_version"]
    return redirect(url_for("overview.home"))


def _address() -> str:
    """Where the request comes from; empty for this machine, whose proxy speaks for everybody."""
    address = request.remote_addr or ""
    return "" if address in ("127.0.0.1", "::1") else address


@pages.post("/logout")
def log_out():
    session.clear()
    answer = redirect(url_for("access.log_in"))
    # What the pages kept of an unfinished answer in this tab goes as well.
    answer.headers["Clear-Site-Data"] = '"storage"'
    return answer


@pages.get("/password")
def password():
    return render_template("password.html")


@pages.post("/password")
def change_password():
    old, new = request.form.get("old", ""), request.form.get("new", "")
    me = g.annotator
    try:
        if accounts.log_in(database(), me["name"], old, _address(), now()) is None:
            raise UserError("the present password is wrong")
        if new != request.form.get("again", ""):
            raise UserError("the two new passwords differ")
        accounts.set_password(database(), me["name"], new)
    except (UserError, accounts.TooManyAttempts) as error:
        return render_template("password.html", problem=str(error)), 422
    session["version"] = me["session_version"] + 1
    flash("Your password is changed; other sessions have ended.")
    return redirect(url_for("overview.home"))
