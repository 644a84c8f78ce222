"""What a request has: its connection and its clock."""

import sqlite3
from typing import Any

from flask import current_app, g

from megatron_biollm.feedback.database import open_database


def database() -> sqlite3.Connection:
    """This request's connection."""
    if "database" not in g:
        g.database = open_database(
            current_app.config["DATABASE"], current_app.config["BUSY_TIMEOUT_S"]
        )
    return g.database


def now() -> float:
    """Seconds since 1970."""
    return current_app.config["CLOCK"]()


def close(_: Any) -> None:
    connection = g.pop("database", None)
    if connection is not None:
        connection.close()
