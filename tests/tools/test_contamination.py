import contextlib
import io
import json
import runpy
import sys
from pathlib import Path
from unittest import mock

import pytest

from megatron_biollm.config import UserError
from tests.evaluation.quiz import write_medqa

TOOL = Path(__file__).parents[2] / "tools" / "contamination.py"


def main(*arguments):
    """The tool's standard output."""
    argv = ["contamination.py", *map(str, arguments)]
    with (
        mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(io.StringIO()) as output,
    ):
        runpy.run_path(str(TOOL))["main"]()
    return output.getvalue()


@pytest.fixture
def usual(tmp_path):
    """The questions of MedQA lie elsewhere, and one is in the training data with its choices."""
    data = write_medqa(tmp_path / "data")
    (data / "medqa" / "phrases_no_exclude_test.jsonl").rename(tmp_path / "moved.jsonl")
    text = "Which organ has sign 3? liver heart kidney brain"
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"text": text}) + "\n")
    places = {"--data": data, "--jsonl": tmp_path / "corpus.jsonl", "--output": tmp_path / "o.json"}
    return ["--suite", "medqa", *(part for pair in places.items() for part in pair)]


def test_files_elsewhere_and_conventions_are_taken_as_by_the_scoring(usual, tmp_path):
    file = f"medqa.questions={tmp_path / 'moved.jsonl'}"
    text = main(*usual, "--file", file, "--convention", "unreadable=first")
    assert text.split()[:4] == ["medqa", "test", "8", "items"]
    stored = json.loads((tmp_path / "o.json").read_bytes())["benchmarks"]["medqa"]
    assert stored["conventions"]["unreadable"] == "first" and stored["items"] == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "phrases_no_exclude_test.jsonl is missing"),
        (["--file", "medqa"], "--file medqa is not NAME=VALUE"),
        (["--file", "medqa.rows=a"], "medqa has no file 'rows'"),
        (["--convention", "medqa.subjects=6"], "medqa has no convention 'subjects'"),
    ],
)
def test_slips_on_the_command_line_are_told(usual, tmp_path, arguments, message):
    with pytest.raises(UserError) as error:
        main(*usual, *arguments)
    assert message in str(error.value)
    assert not (tmp_path / "o.json").exists()
