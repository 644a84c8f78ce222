"""tools/collect_feedback.py from the command line, as an administrator uses it."""

import json
import re
import socket
import sqlite3
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path
from xml.etree import ElementTree

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "collect_feedback.py"


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, arguments)], capture_output=True, text=True, **options
    )


def done(*arguments, **options):
    result = run(*arguments, **options)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "study.db"
    rows = [{"prompt": f"q{n}", "answers": [f"a{n}", f"b{n}"]} for n in range(3)]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    done("init", path, "--title", "Study", "--double-share", "1")
    assert "3 pairs added, 0 were there" in done("import", path, tmp_path / "a.jsonl")
    return path


def test_help_has_examples():
    assert "python tools/collect_feedback.py serve study.db" in done("--help")
    assert "ultrafeedback" in done("import", "--help")
    names = {element.get("name") for element in ElementTree.fromstring(done("label-config")).iter()}
    assert {"preference", "other", "strength", "unsafe_a", "error_b", "correction"} <= names


def test_accounts_and_reports(study, tmp_path):
    out = done("add-annotator", study, "Dr. Rossi", "--specialty", "cardiology")
    password = re.search(r"shown this once: (\S+)", out)[1]
    given = done("set-password", study, "dr. rossi", "--ask-password", input="a long password\n")
    assert password not in given and "a long password" not in given
    (rossi,) = json.loads(done("progress", study, "--json"))["annotators"]
    assert (rossi["name"], rossi["specialty"]) == ("Dr. Rossi", "cardiology")
    assert "Dr. Rossi (cardiology), annotator: 0 judgements" in done("progress", study)
    assert json.loads(done("adjudication", study, "--json")) == []
    assert json.loads(done("configure", study, "--title", "Neu"))["title"] == "Neu"
    done("backup", study, tmp_path / "copy.db")
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600


def test_a_mistake_is_one_message_and_nothing_is_written(study, tmp_path):
    for arguments, words in (
        (("init", study), "exists already"),
        (("import", tmp_path / "none.db", "x"), "does not exist"),
        (("import", study, tmp_path / "none.jsonl"), "does not exist"),
        (("export", study, tmp_path / "out.jsonl"), "3 not judged"),
        (("serve", study, "--tls-cert", "x"), "belong together"),
    ):
        result = run(*arguments)
        assert result.returncode == 2 and result.stderr.startswith("error: ")
        assert words in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_a_locked_database_is_one_message(study):
    locker = sqlite3.connect(study, isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    code = (
        "import sys, runpy; from megatron_biollm.feedback import database as d;"
        "d.open_database.__defaults__ = (0.05,);"
        f"sys.argv = ['x', 'disable-annotator', {str(study)!r}, 'A'];"
        f"runpy.run_path({str(TOOL)!r}, run_name='__main__')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    locker.close()
    assert result.returncode == 2 and "database is locked; nothing was changed" in result.stderr


def test_it_serves_on_loopback_until_it_is_told_to_stop(study):
    command = [sys.executable, str(TOOL), "serve", str(study), "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        address = re.search(r"open (http://127\.0\.0\.1:\d+)", server.stderr.readline())[1]
        with urllib.request.urlopen(f"{address}/login", timeout=20) as answer:
            assert "Study" in answer.read().decode() and "Python" not in answer.headers["Server"]
    finally:
        server.terminate()
        rest = server.communicate(timeout=20)[1]
    assert server.returncode == 0 and rest == ""
    assert stat.S_IMODE(Path(f"{study}.secret").stat().st_mode) == 0o600


def test_a_port_that_is_taken_is_one_message(study):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run("serve", study, "--port", taken.getsockname()[1])
    assert result.returncode == 2 and "choose another --port" in result.stderr


def test_beyond_loopback_it_warns_of_what_is_not_encrypted(study):
    command = [sys.executable, str(TOOL), "serve", str(study), "--port", "0", "--host", "0.0.0.0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    lines = [server.stderr.readline() for _ in range(3)]
    server.terminate()
    server.communicate(timeout=20)
    assert "reachable from other machines" in lines[0] and "unencrypted" in lines[1]
