"""The project's SQLite file: made once, opened per request, written in short transactions."""

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from megatron_biollm.atomic import temporary_name
from megatron_biollm.config import UserError

SCHEMA_VERSION = 1
# Marks the file as ours, as `file` and other programs read it ("BLFB").
APPLICATION_ID = 0x424C4642
_OLDEST_SQLITE = (3, 38)
DEFAULTS: dict[str, Any] = {
    "title": "Comparing answers",
    "instructions": "",
    "seed": 1234,
    "double_share": 0.2,
    "lease_minutes": 30,
}


def create_database(path: str | Path, **settings: Any) -> None:
    """Makes an empty project that only its owner can read.

    settings: those of `DEFAULTS` that differ; `double_share` is the share of items, 0 to 1, that
        two experts judge.

    Raises:
        UserError: the file exists, its folder does not, or a setting is out of its range.
    """
    path = Path(path)
    if path.exists():
        raise UserError(f"{path} exists already; give another name, or import into it as it is")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is not a folder; make it first")
    values = check_settings({**DEFAULTS, **settings})
    temporary = temporary_name(path)
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        with contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
            check_sqlite()
            schema = files("megatron_biollm.feedback").joinpath("schema.sql").read_text("utf-8")
            connection.executescript(
                f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
                f"BEGIN; {schema} COMMIT;"
            )
            rows = [(name, json.dumps(value)) for name, value in values.items()]
            connection.executemany("INSERT INTO setting VALUES (?, ?)", rows)
        os.link(temporary, path)
    except FileExistsError as error:
        raise UserError(f"{path} has just been made by another process; use it") from error
    finally:
        temporary.unlink(missing_ok=True)


def check_settings(values: dict[str, Any]) -> dict[str, Any]:
    if not 0 <= values["double_share"] <= 1:
        raise UserError(
            f"double_share is {values['double_share']}, but it is a share of the items; "
            "give 0 to 1, for example 0.2"
        )
    if values["lease_minutes"] <= 0:
        raise UserError(f"lease_minutes is {values['lease_minutes']}; give more than 0")
    return values


def check_sqlite() -> None:
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise UserError(
            f"this Python has SQLite {sqlite3.sqlite_version}, but 3.38 or later is needed; "
            "use a newer Python"
        )


def open_database(path: str | Path, busy_timeout_s: float = 10.0) -> sqlite3.Connection:
    """A connection in autocommit mode; writing happens inside `transaction`.

    Raises:
        UserError: no such file, not a project's file, a newer schema, or a file system (network
            folders) on which a write-ahead log cannot work.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; make it with: collect_feedback.py init {path}")
    connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)
    try:
        _check_file(connection, path)
        connection.execute("PRAGMA foreign_keys = ON")
        # A judgement that the page called saved must survive a power cut.
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    connection.row_factory = sqlite3.Row
    return connection


def _check_file(connection: sqlite3.Connection, path: Path) -> None:
    check_sqlite()
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        application = None
    if application != APPLICATION_ID:
        raise UserError(
            f"{path} is no database of this tool; give one made with collect_feedback.py init"
        )
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema {version}, this version reads {SCHEMA_VERSION}; open it with the "
            "version of megatron_biollm that made it"
        )
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise UserError(
            f"{path} lies where SQLite cannot keep a write-ahead log (mode {mode}); put it on a "
            "local disk, not a network folder"
        )


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All or nothing, alone: the write lock is taken at the start, so what was read stays true."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    finally:
        # A full disk may have ended it already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def settings(connection: sqlite3.Connection) -> dict[str, Any]:
    rows = connection.execute("SELECT name, value FROM setting")
    return {**DEFAULTS, **{row["name"]: json.loads(row["value"]) for row in rows}}


def change_settings(connection: sqlite3.Connection, **values: Any) -> None:
    """Changes settings other than the seed; items that are there keep the ratings they want.

    Raises:
        UserError: a setting out of its range, or the seed, on which stored orders depend.
    """
    if "seed" in values:
        raise UserError("the seed cannot change: items are ordered by it; make a new project")
    with transaction(connection):
        check_settings({**settings(connection), **values})
        rows = [(name, json.dumps(value)) for name, value in values.items()]
        connection.executemany("INSERT OR REPLACE INTO setting VALUES (?, ?)", rows)


@contextlib.contextmanager
def database_errors(path: str | Path) -> Iterator[None]:
    """Turns what SQLite says of a locked database or a full disk into a UserError."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise UserError(
            f"cannot use {path}: {error}; nothing was changed. {remedy(error)}"
        ) from error


def remedy(error: sqlite3.Error) -> str:
    text = str(error)
    if "locked" in text:
        return "Another program is writing; wait for it to end, then repeat."
    if "full" in text or "disk I/O" in text:
        return "Free some space on the disk, then repeat."
    if "readonly" in text or "unable to open" in text:
        return "The file and its folder must be writable for this user."
    return "Look at the file with collect_feedback.py backup, or restore a backup."


def backup(path: str | Path, output: str | Path) -> None:
    """A copy of the database as of one moment, while others go on writing; whole or not at all.

    Raises:
        UserError: `output` exists, or a database error.
    """
    output = Path(output)
    if output.exists():
        raise UserError(f"{output} exists already; give another name, such as one with the date")
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(output)
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        with (
            database_errors(output),
            contextlib.closing(open_database(path)) as source,
            contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as copy,
        ):
            source.backup(copy)
            # One file, without a log beside it that a copy could leave behind.
            copy.execute("PRAGMA journal_mode = DELETE")
            (state,) = copy.execute("PRAGMA quick_check").fetchone()
            if state != "ok":
                raise UserError(f"the copy of {path} is damaged ({state}); restore an older backup")
        temporary.rename(output)
    finally:
        temporary.unlink(missing_ok=True)
