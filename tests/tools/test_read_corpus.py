import json
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "read_corpus.py"


def run(*arguments):
    return subprocess.run(
        [sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True
    )


def test_it_writes_the_documents_and_reports_each_file(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text('{"text": "one"}\nbroken\n')
    (tmp_path / "in" / "b.csv").write_text("x")
    done = run("--input", tmp_path / "in", "--output", tmp_path / "out.jsonl", "--json")
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["totals"] == {
        "files": 2, "passed_over": 1, "documents": 1, "dropped": {}, "faults": 1,
    }  # fmt: skip
    assert report["files"][0]["faults"][0]["position"] == "line 2"
    assert json.loads((tmp_path / "out.jsonl").read_text())["text"] == "one"


def test_bad_input_is_one_message_and_status_2(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\nbroken\n')
    (tmp_path / "b.csv").write_text("x")
    output = tmp_path / "out.jsonl"
    cases = {
        "the corpus is empty": ["--input", tmp_path / "b.csv", "--output", output],
        "1 faults in 1 files": ["--input", tmp_path, "--output", output, "--strict"],
        "does not exist": ["--input", tmp_path / "c", "--output", output],
    }
    for message, arguments in cases.items():
        done = run(*arguments)
        assert done.returncode == 2 and done.stdout == ""
        assert "error: " in done.stderr and message in done.stderr
        assert "Traceback" not in done.stderr
        assert not output.exists()
