import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.answers import Answers
from megatron_biollm.evaluation.benchmarks.bioasq import BIOASQ
from megatron_biollm.evaluation.benchmarks.medqa import MEDQA
from megatron_biollm.evaluation.benchmarks.pubmedqa import PUBMEDQA
from megatron_biollm.evaluation.mirage import closed_book
from megatron_biollm.evaluation.plan import Plan, as_answered, prepare, with_stored
from megatron_biollm.evaluation.verdict import judge, table

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
    lines = (data / "out" / "pubmedqa.s0p0.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"id": "11", "prediction": 0, "text": TEXTS["11"][0]},
        {"id": "12", "prediction": None, "text": TEXTS["12"][0]},
        {"id": "13", "prediction": None, "text": TEXTS["13"][0]},
    ]
    done = run(data, "--benchmark", "pubmedqa", "--rule", "own")
    assert done.stdout.splitlines()[1].split() == ["pubmedqa", "3", "1", "66.67", "66.67"]


def test_what_was_asked_without_abstracts_is_scored_and_reported_so(data):
    assert run(data, "--benchmark", "pubmedqa").returncode == 0
    answers = Answers.open(data / "out")
    plan = Plan([PUBMEDQA], data / "data", conventions={"pubmedqa": {"unreadable": "first"}})
    prepared = [as_answered(one, answers) for one in prepare(with_stored(plan, answers))]
    found = judge(answers, prepared)
    assert found.model == "gpt" and not prepared[0].items[0].context
    assert found.results[0].conventions == {"context": "without", "unreadable": "first"}
    assert "context=without" in table(found)
    with_contexts = replace(plan, conventions={"pubmedqa": {"context": "with"}})
    with pytest.raises(UserError, match="was answered with conventions="):
        [as_answered(one, answers) for one in prepare(with_stored(with_contexts, answers))]


def test_answers_of_two_models_do_not_share_a_folder(data):
    assert run(data, "--benchmark", "pubmedqa").returncode == 0
    shutil.move(data / "answers" / "pubmedqa" / "gpt", data / "answers" / "pubmedqa" / "other")
    done = run(data, "--benchmark", "pubmedqa", "--model", "other")
    assert done.returncode == 2 and "holds the answers of 'gpt', not of 'other'" in done.stderr


@pytest.mark.parametrize("one", [PUBMEDQA, BIOASQ, MEDQA], ids=lambda one: one.name)
def test_mirage_asked_without_contexts(one):
    assert closed_book(one).get("context", "without") == "without"


def test_absent_answers_are_one_message_and_nothing_is_written(data):
    (data / "answers" / "pubmedqa" / "gpt" / "test_12.json").unlink()
    done = run(data, "--benchmark", "pubmedqa")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "1 questions have no answer (12)" in done.stderr
    assert not (data / "out").exists()
