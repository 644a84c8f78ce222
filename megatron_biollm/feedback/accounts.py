"""Who may log in: names, specialties, roles, hashed passwords, and a limit on guesses."""

import hashlib
import secrets
import sqlite3
from typing import Optional

from werkzeug.security import check_password_hash, generate_password_hash

from megatron_biollm.config import UserError
from megatron_biollm.feedback.database import transaction
from megatron_biollm.feedback.words import ADJUDICATOR, ANNOTATOR, DATASET, ROLES

SHORTEST_PASSWORD = 10
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
# Failures within the window that stop further attempts, for one name and one address.
WINDOW_S = 900.0
FAILURES_OF_A_NAME = 5
FAILURES_OF_AN_ADDRESS = 30


class TooManyAttempts(Exception):
    """wait_s: seconds until another attempt is accepted."""

    def __init__(self, wait_s: float):
        super().__init__(f"too many failed attempts; wait {wait_s:.0f} s")
        self.wait_s = wait_s


def make_password() -> str:
    """Some 74 bits, without letters that look alike."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(5)) for _ in range(3))


def add_annotator(
    connection: sqlite3.Connection,
    name: str,
    password: Optional[str],
    specialty: str = "",
    role: str = ANNOTATOR,
    *,
    now: float,
) -> int:
    """Adds an account and returns its id.

    password: None for one that cannot log in.

    Raises:
        UserError: the name is taken or empty, an unknown role, or a password that is too short.
    """
    name, specialty = " ".join(name.split()), " ".join(specialty.split())
    if not name:
        raise UserError("the annotator's name is empty; give a name to log in with")
    if role not in ROLES:
        raise UserError(f"role is {role!r}; give one of {', '.join(ROLES)}")
    hashed = None if password is None else hash_password(password)
    salt = int.from_bytes(hashlib.sha256(name.casefold().encode()).digest()[:6], "big")
    with transaction(connection):
        if connection.execute("SELECT 1 FROM annotator WHERE name = ?", [name]).fetchone():
            raise UserError(
                f"annotator {name!r} exists already; choose another name, or give this one a new "
                "password with set-password"
            )
        cursor = connection.execute(
            "INSERT INTO annotator (name, specialty, role, password_hash, salt, added_at) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            [name, specialty, role, hashed, salt, now],
        )
    return cursor.lastrowid


def hash_password(password: str) -> str:
    if len(password) < SHORTEST_PASSWORD:
        raise UserError(
            f"the password has {len(password)} characters; give at least {SHORTEST_PASSWORD}, for "
            "example four words"
        )
    return generate_password_hash(password, method="scrypt")


def set_password(connection: sqlite3.Connection, name: str, password: str) -> None:
    """Gives an account a new password and ends its sessions."""
    hashed = hash_password(password)
    _change(connection, name, "password_hash = ?, active = 1", [hashed])


def disable(connection: sqlite3.Connection, name: str) -> None:
    """Ends the sessions of an account and lets it in no more; its judgements stay."""
    _change(connection, name, "active = 0", [])


def _change(connection: sqlite3.Connection, name: str, changes: str, values: list) -> None:
    with transaction(connection):
        done = connection.execute(
            f"UPDATE annotator SET {changes}, session_version = session_version + 1 "
            "WHERE name = ? AND role <> 'dataset'",
            [*values, name],
        )
        # A new password is also the way out of a lock.
        connection.execute("DELETE FROM login_failure WHERE name = ?", [name])
        if done.rowcount != 1:
            raise UserError(f"no annotator is called {name!r}; `annotators` lists them all")


def annotator(connection: sqlite3.Connection, annotator_id: int) -> Optional[sqlite3.Row]:
    return connection.execute(
        "SELECT * FROM annotator WHERE id = ? AND active", [annotator_id]
    ).fetchone()


def log_in(
    connection: sqlite3.Connection, name: str, password: str, address: str, now: float
) -> Optional[sqlite3.Row]:
    """The annotator's row, or None for a wrong name or password.

    address: of the browser, empty where many share one (behind a proxy, on one machine).

    Raises:
        TooManyAttempts: after several failures of a name or an address.
    """
    _check_attempts(connection, name, address, now)
    row = connection.execute(
        "SELECT * FROM annotator WHERE name = ? AND active AND password_hash IS NOT NULL", [name]
    ).fetchone()
    # Unknown names take as long as known ones.
    hashed = row["password_hash"] if row else generate_password_hash("", method="scrypt")
    if check_password_hash(hashed, password) and row:
        return row
    with transaction(connection):
        connection.execute("DELETE FROM login_failure WHERE at < ?", [now - WINDOW_S])
        connection.execute("INSERT INTO login_failure VALUES (?, ?, ?)", [name[:200], address, now])
    return None


def _check_attempts(connection: sqlite3.Connection, name: str, address: str, now: float) -> None:
    limits = {
        "name": (name[:200], FAILURES_OF_A_NAME),
        "address": (address, FAILURES_OF_AN_ADDRESS),
    }
    for column, (value, limit) in limits.items():
        rows = connection.execute(
            f"SELECT at FROM login_failure WHERE {column} = ? AND at > ? ORDER BY at DESC LIMIT ?",
            [value, now - WINDOW_S, limit],
        ).fetchall()
        if value and len(rows) >= limit:
            raise TooManyAttempts(rows[-1]["at"] + WINDOW_S - now)


def imported_account(connection: sqlite3.Connection, name: str, role: str, now: float) -> int:
    """The id of a person or data set named in a file, added where it is new.

    Raises:
        UserError: a name that is a person here and a data set there.
    """
    row = connection.execute("SELECT id, role FROM annotator WHERE name = ?", [name]).fetchone()
    if row is None:
        salt = int.from_bytes(hashlib.sha256(name.casefold().encode()).digest()[:6], "big")
        return connection.execute(
            "INSERT INTO annotator (name, role, salt, added_at) VALUES (?, ?, ?, ?)",
            [name, role, salt, now],
        ).lastrowid
    if (row["role"] == DATASET) != (role == DATASET):
        raise UserError(
            f"{name!r} is an account of role {row['role']} here; give the source another name"
        )
    return row["id"]


def is_adjudicator(row: sqlite3.Row) -> bool:
    return row["role"] == ADJUDICATOR
