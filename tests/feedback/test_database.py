import sqlite3
import stat
import threading

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.feedback import accounts
from megatron_biollm.feedback.database import (
    backup,
    change_settings,
    create_database,
    database_errors,
    open_database,
    settings,
    transaction,
)
from megatron_biollm.feedback.web.serve import read_secret
from tests.feedback.project import BETTER_A, pair


def test_a_project_is_readable_by_its_owner_alone(tmp_path):
    create_database(tmp_path / "a.db", title="Ein Titel", double_share=0.5)
    assert stat.S_IMODE((tmp_path / "a.db").stat().st_mode) == 0o600
    connection = open_database(tmp_path / "a.db")
    found = settings(connection)
    assert (found["title"], found["double_share"], found["seed"]) == ("Ein Titel", 0.5, 1234)
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert connection.execute("PRAGMA foreign_keys").fetchone()[0] == 1
    connection.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"double_share": 1.5}, "give 0 to 1"), ({"lease_minutes": 0}, "more than 0")],
)
def test_a_setting_out_of_range_makes_no_file(tmp_path, settings, words):
    with pytest.raises(UserError, match=words):
        create_database(tmp_path / "a.db", **settings)
    assert not list(tmp_path.iterdir())


def test_settings_change_but_for_the_seed(make_project):
    project = make_project()
    change_settings(project.connection, title="New", double_share=0.9)
    assert settings(project.connection)["title"] == "New"
    for values, words in (({"seed": 1}, "cannot change"), ({"double_share": 2}, "give 0 to 1")):
        with pytest.raises(UserError, match=words):
            change_settings(project.connection, **values)
    assert settings(project.connection)["double_share"] == 0.9


def test_an_existing_file_is_left_alone(tmp_path):
    (tmp_path / "a.db").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        create_database(tmp_path / "a.db")
    with pytest.raises(UserError, match="no database of this tool"):
        open_database(tmp_path / "a.db")
    with pytest.raises(UserError, match="does not exist"):
        open_database(tmp_path / "b.db")
    sqlite3.connect(tmp_path / "c.db").execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(UserError, match="no database of this tool"):
        open_database(tmp_path / "c.db")
    assert (tmp_path / "a.db").read_text() == "mine"


def test_a_newer_schema_is_refused(tmp_path):
    create_database(tmp_path / "a.db")
    connection = open_database(tmp_path / "a.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(UserError, match="schema 99"):
        open_database(tmp_path / "a.db")


def test_what_breaks_off_leaves_nothing(make_project):
    project = make_project()

    def break_off():
        with transaction(project.connection):
            project.connection.execute("DELETE FROM item")
            raise KeyError

    with pytest.raises(KeyError):
        break_off()
    assert project.row("SELECT count(*) FROM item")[0] == 4


def test_a_backup_is_whole_while_others_write(make_project, tmp_path):
    project = make_project([pair(n) for n in range(30)])
    visitor = project.visitor("Ada")
    writer = threading.Thread(target=visitor.judge_all, args=[BETTER_A])
    writer.start()
    backup(project.path, tmp_path / "copies" / "one.db")
    writer.join()
    assert stat.S_IMODE((tmp_path / "copies/one.db").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "copies").iterdir()] == ["one.db"]
    copy = open_database(tmp_path / "copies/one.db")
    assert copy.execute("SELECT count(*) FROM item").fetchone()[0] == 30
    assert copy.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    copy.close()
    with pytest.raises(UserError, match="exists already"):
        backup(project.path, tmp_path / "copies/one.db")


def test_a_locked_database_is_a_message_for_a_tool(make_project):
    project = make_project()
    other = open_database(project.path, busy_timeout_s=0.01)
    with transaction(project.connection), pytest.raises(UserError, match="nothing was changed"):  # noqa: SIM117
        with database_errors(project.path), transaction(other):
            pass
    other.close()


def test_passwords_are_stored_as_slow_salted_hashes():
    first, second = (accounts.hash_password("correct horse") for _ in range(2))
    assert first.startswith("scrypt:32768:8:1$") and first != second and "horse" not in first


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("Ada", "long enough now"), "exists already"),
        (("ADA", "long enough now"), "exists already"),
        (("  ", "long enough now"), "is empty"),
        (("Dan", "short"), "at least 10"),
        (("Dan", "long enough now", "", "boss"), "give one of"),
    ],
)
def test_an_account_that_cannot_be_is_refused(make_project, values, words):
    project = make_project()
    with pytest.raises(UserError, match=words):
        accounts.add_annotator(project.connection, *values, now=0.0)


def test_who_is_disabled_is_out_and_their_judgements_stay(make_project):
    project = make_project()
    visitor = project.visitor("Ada")
    visitor.judge_all()
    accounts.disable(project.connection, "ada")
    assert visitor.get("/").headers["Location"] == "/login"
    assert project.row("SELECT count(*) FROM judgement")[0] == 4
    with pytest.raises(UserError, match="no annotator"):
        accounts.disable(project.connection, "Nobody")


def test_made_up_passwords_are_long_and_differ():
    found = {accounts.make_password() for _ in range(50)}
    assert len(found) == 50 and all(len(password) == 17 for password in found)


def test_the_secret_stays_and_nobody_else_can_read_it(tmp_path):
    secret = read_secret(tmp_path / "a.db")
    path = tmp_path / "a.db.secret"
    assert read_secret(tmp_path / "a.db") == secret and len(secret) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(UserError, match="can be read by others"):
        read_secret(tmp_path / "a.db")
