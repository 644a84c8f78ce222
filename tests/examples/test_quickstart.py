"""examples/quickstart/run.sh, as `make quickstart` runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

SCRIPT = Path(__file__).parents[2] / "examples" / "quickstart" / "run.sh"


def run(work, *arguments, timeout=60, **environment):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", str(SCRIPT), *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | {"PATH": path, "WORK": str(work)} | environment,
    )


def test_a_folder_that_it_has_not_made_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    done = run(tmp_path)
    assert done.returncode == 2 and f"error: {tmp_path} exists" in done.stderr
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_sources_inside_the_folder_that_is_replaced_are_left_alone(tmp_path):
    (tmp_path / ".quickstart").touch()
    (tmp_path / "sources").mkdir()
    done = run(tmp_path, tmp_path / "sources")
    assert done.returncode == 2 and "sources lies in" in done.stderr
    assert (tmp_path / "sources").is_dir()


def test_sources_without_text_end_it_with_one_line(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text('{"text": "two words"}\n')
    done = run(tmp_path / "work", tmp_path / "in")
    assert done.returncode == 1, done.stderr
    assert "error: curation has left no text" in done.stderr


@pytest.mark.slow
def test_it_goes_from_the_sample_sources_to_a_model_that_writes(tmp_path):
    done = run(tmp_path / "work", STEPS="10", timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "parity holds" in done.stdout and "verified: structure" in done.stdout
    blend = yaml.safe_load((tmp_path / "work" / "corpus" / "blend.yaml").read_text())
    prefixes = blend["data"]["data_path"][1::2]
    assert [Path(prefix).parent.name for prefix in prefixes] == [
        "clinical_notes", "clinical_trials", "patents", "pmc", "pubmed",
    ]  # fmt: skip
    assert done.stdout.count("--- 3 of 3") == 3  # answers of three models
    for made in (
        "corpus/report.html", "lengths.png", "export/model.safetensors", "loss.png",
        "assistant/model.safetensors", "assistant/chat_template.jinja",
    ):  # fmt: skip
        assert (tmp_path / "work" / made).stat().st_size > 0
