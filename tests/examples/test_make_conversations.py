"""examples/quickstart/make_conversations.py."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "quickstart" / "make_conversations.py"


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def make(folder):
    subprocess.run([sys.executable, SCRIPT, folder], check=True, capture_output=True)
    return {path.stem: records(path) for path in folder.iterdir()}


def test_held_out_questions_are_in_other_words(tmp_path):
    made = make(tmp_path / "first")
    trained = {c["messages"][0]["content"] for c in made["conversations"]}
    held_out = {c["messages"][0]["content"] for c in made["conversations_heldout"]}
    assert trained and held_out and not trained & held_out
    asked = {q["messages"][-1]["content"] for q in made["questions"]}
    assert len(asked) == 3 and asked <= held_out


def test_pairs_differ_in_what_follows_the_fact_alone(tmp_path):
    for pair in make(tmp_path)["preferences"]:
        chosen, rejected = (pair[k][0]["content"].split(". ", 1) for k in ("chosen", "rejected"))
        assert chosen[0] == rejected[0] and chosen[1] != rejected[1]


def test_the_same_seed_gives_the_same_texts(tmp_path):
    assert make(tmp_path / "a") == make(tmp_path / "b")
