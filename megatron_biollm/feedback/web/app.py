"""The application: one database connection a request, security headers, nothing typed is lost."""

import contextlib
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Optional

from flask import Flask, Response, g, request

from megatron_biollm.feedback.database import open_database, settings
from megatron_biollm.feedback.web import access, faults, judge, overview
from megatron_biollm.feedback.web.context import close, database
from megatron_biollm.feedback.web.texts import register_filters

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")
SESSION_HOURS = 12
LARGEST_REQUEST = 4 * 2**20
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def create_app(
    path: str | Path,
    *,
    secret: Optional[bytes] = None,
    secure_cookies: bool = False,
    hosts: Sequence[str] = LOOPBACK_HOSTS,
    busy_timeout_s: float = 10.0,
    clock: Callable[[], float] = time.time,
) -> Flask:
    """The WSGI application on one project's database.

    Args:
        secret: signs the sessions; None makes one that ends with the process.
        secure_cookies: send them over HTTPS alone.
        hosts: names in the address bar that are answered, against DNS rebinding; `*` is any.
        busy_timeout_s: seconds to wait for another writer before saying so.
        clock: seconds since 1970.

    Raises:
        UserError: no database of this tool at `path`.
    """
    open_database(path).close()
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=secret or secrets.token_bytes(32),
        SESSION_COOKIE_NAME="feedback",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_SECURE=secure_cookies,
        PERMANENT_SESSION_LIFETIME=SESSION_HOURS * 3600,
        HOSTS=frozenset(host.lower() for host in hosts),
        MAX_CONTENT_LENGTH=LARGEST_REQUEST,
        MAX_FORM_MEMORY_SIZE=LARGEST_REQUEST,
        DATABASE=Path(path),
        BUSY_TIMEOUT_S=busy_timeout_s,
        CLOCK=clock,
    )
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    register_filters(app)
    app.teardown_appcontext(close)
    app.before_request(access.check)
    app.after_request(_add_headers)
    app.context_processor(_for_every_page)
    for room in (access, judge, overview):
        app.register_blueprint(room.pages)
    faults.register(app)
    return app


def _add_headers(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if request.endpoint != "static":
        # Pages hold patients' words: no copy on the disk of a shared machine.
        response.headers["Cache-Control"] = "no-store"
    return response


def _for_every_page() -> dict[str, Any]:
    values = {"csrf_token": access.csrf_token, "me": g.get("annotator"), "title": "Feedback"}
    # The page that says that the database is busy must come out all the same.
    with contextlib.suppress(sqlite3.Error):
        values["title"] = settings(database())["title"]
    return values
