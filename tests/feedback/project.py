"""A small project on disk, its annotators, and browsers without a browser."""

import json
import re
import sqlite3
from functools import cache
from pathlib import Path

from werkzeug.security import generate_password_hash

from megatron_biollm.feedback.accounts import add_annotator
from megatron_biollm.feedback.database import create_database, open_database
from megatron_biollm.feedback.importing import import_items
from megatron_biollm.feedback.items import Answer, Item
from megatron_biollm.feedback.web.app import create_app

PASSWORD = "correct horse battery"
BETTER_A = {"preference": "a", "strength": "2"}


def pair(number: int, **more) -> Item:
    answers = (Answer(f"first {number}", "model-one"), Answer(f"second {number}", "model-two"))
    return Item([{"role": "user", "content": f"question {number}"}], answers, **more)


@cache
def hashed() -> str:
    """Fast to check, as only a test's may be."""
    return generate_password_hash(PASSWORD, method="pbkdf2:sha256:100")


class Clock:
    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Project:
    """`items` in a new database; `people` maps names to roles."""

    def __init__(self, folder: Path, items: list[Item], people: dict[str, str], **settings):
        self.path, self.clock = folder / "study.db", Clock()
        create_database(self.path, **settings)
        self.connection = open_database(self.path)
        import_items(self.connection, items, self.clock())
        for name, role in people.items():
            specialty = "" if role == "dataset" else f"{name}'s field"
            add_annotator(self.connection, name, None, specialty, role, now=self.clock())
        self.connection.execute(
            "UPDATE annotator SET password_hash = ? WHERE role <> 'dataset'", [hashed()]
        )
        self.app = create_app(self.path, busy_timeout_s=0.05, clock=self.clock)

    def row(self, query: str, *values) -> sqlite3.Row:
        return self.connection.execute(query, values).fetchone()

    def rows(self, query: str, *values) -> list[sqlite3.Row]:
        return self.connection.execute(query, values).fetchall()

    def account(self, name: str) -> sqlite3.Row:
        return self.row("SELECT * FROM annotator WHERE name = ?", name)

    def visitor(self, name: str) -> "Visitor":
        return Visitor(self.app, name)


class Visitor:
    """Somebody who is logged in and fills in the forms that the pages hold."""

    def __init__(self, app, name: str):
        self.client, self.name = app.test_client(), name
        self.get("/login")
        answer = self.post("/login", {"name": name, "password": PASSWORD})
        assert answer.status_code == 302, answer.text
        self.get("/")

    def get(self, address: str):
        answer = self.client.get(address)
        if found := re.search(r'name="csrf_token" value="([^"]+)"', answer.text):
            self.token = found[1]
        answer.close()
        return answer

    def post(self, address: str, fields: dict, **more):
        return self.client.post(address, data={"csrf_token": self.token, **fields}, **more)

    def next(self) -> str | None:
        """The address of the item that is theirs now; None when all is done."""
        return self.get("/next").headers.get("Location")

    def hidden(self, address: str) -> dict:
        """The fields that the page brings along."""
        page = self.get(address).text
        return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page))

    def save(self, address: str, fields: dict | None = None, **more):
        return self.post(address, {**self.hidden(address), **(fields or BETTER_A)}, **more)

    def judge_all(self, fields: dict | None = None) -> list[str]:
        done = []
        while address := self.next():
            assert self.save(address, fields).status_code == 302
            done.append(address)
        return done


def write_lines(path: Path, rows: list) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
