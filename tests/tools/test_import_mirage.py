import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "import_mirage.py"
LABELS = {"11": "yes", "12": "no", "13": "maybe"}
TEXTS = {"11": ['{"answer_choice": "A. yes"}'], "12": ["I cannot say."], "13": ["maybe"]}


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data" / "pubmedqa"
    folder.mkdir(parents=True)
    rows = {
        pmid: {"QUESTION": "Is it?", "CONTEXTS": ["It was."], "final_decision": label}
        for pmid, label in LABELS.items()
    }
    (folder / "ori_pqal.json").write_text(json.dumps(rows))
    (folder / "test_ground_truth.json").write_text(json.dumps(LABELS))
    answers = tmp_path / "answers" / "pubmedqa" / "gpt"
    answers.mkdir(parents=True)
    for pmid, texts in TEXTS.items():
        (answers / f"test_{pmid}.json").write_text(json.dumps(texts))
    return tmp_path


def run(data, *arguments):
    places = ["--answers", data / "answers", "--data", data / "data", "--out", data / "out"]
    return subprocess.run(
        [sys.executable, TOOL, *map(str, places), "--model", "gpt", *arguments],
        capture_output=True,
        text=True,
    )


def test_answers_are_stored_and_counted(data):
    done = run(data, "--benchmark", "pubmedqa", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        {
            "benchmark": "pubmedqa",
            "answers": 3,
            "unreadable": 2,
            "accuracy_wrong": pytest.approx(1 / 3),
            "accuracy_first": pytest.approx(1 / 3),
        }
    ]
    lines = (data / "out" / "pubmedqa.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"id": "11", "prediction": 0, "text": TEXTS["11"][0]},
        {"id": "12", "prediction": None, "text": TEXTS["12"][0]},
        {"id": "13", "prediction": None, "text": TEXTS["13"][0]},
    ]
    done = run(data, "--benchmark", "pubmedqa", "--rule", "own")
    assert done.stdout.splitlines()[1].split() == ["pubmedqa", "3", "1", "66.67", "66.67"]


def test_absent_answers_are_one_message_and_nothing_is_written(data):
    (data / "answers" / "pubmedqa" / "gpt" / "test_12.json").unlink()
    done = run(data, "--benchmark", "pubmedqa")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "1 questions have no answer (12)" in done.stderr
    assert not (data / "out").exists()
