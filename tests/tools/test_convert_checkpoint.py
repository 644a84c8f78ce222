"""tools/convert_checkpoint.py from the command line: exit status, one message, no remains."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*arguments):
    command = [sys.executable, "tools/convert_checkpoint.py", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_help_has_an_example():
    result = run("--help")
    assert result.returncode == 0
    assert "python tools/convert_checkpoint.py to-hf --input" in result.stdout


def test_a_missing_input_is_one_message_and_a_failure(tmp_path):
    result = run("from-hf", "--input", tmp_path / "nowhere", "--output", tmp_path / "out")
    assert result.returncode == 2 and not (tmp_path / "out").exists()
    assert (
        result.stderr
        == f"error: {tmp_path / 'nowhere'} does not exist; give the path of a folder\n"
    )


def test_a_folder_without_a_checkpoint_is_refused_without_a_traceback(tmp_path):
    (tmp_path / "empty").mkdir()
    result = run("to-hf", "--input", tmp_path / "empty", "--output", tmp_path / "out")
    assert result.returncode == 2 and not (tmp_path / "out").exists()
    assert "was never committed" in result.stderr and "Traceback" not in result.stderr
