import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_biollm.tokenizer.manifest import load_tokenizer
from megatron_biollm.tokenizer.train import train_tokenizer

TOOL = Path(__file__).parents[2] / "tools" / "extend_tokenizer.py"


def run(*arguments):
    return subprocess.run(
        [sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True
    )


@pytest.fixture
def base(tmp_path):
    return train_tokenizer(["the patients of the clinic in pain"], 512, tmp_path / "base")


@pytest.fixture
def corpus(tmp_path):
    dice = random.Random(3)
    words = ["the", "patients", "hepatitis", "nephritis", "arthritis", "pneumonia", "analgesia"]
    lines = (
        json.dumps({"text": " ".join(dice.choices(words, k=30)) + " </s>", "source": source})
        for source in ("pubmed", "pmc")
        for _ in range(50)
    )
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    return tmp_path / "corpus.jsonl"


def test_it_adds_exactly_so_many_pieces_and_reports_what_they_do(base, corpus, tmp_path):
    output = tmp_path / "more"
    common = [
        "--base",
        base,
        "--input",
        corpus,
        "--add",
        16,
        "--held-out",
        0.2,
        "--compare",
        corpus,
    ]
    done = run(*common, "--output", output, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    tokenizer = load_tokenizer(output)
    assert len(report["pieces"]) == 16
    assert set(report["checks"].values()) == {0}
    total = report["held_out"][-1]
    assert total["documents"] + report["learned_from"]["documents"] == 100
    assert report["texts_compared"] == 2 * total["documents"] + 2 * 100
    assert report["manifest"]["added_tokens"] == 16
    assert total["percent_saved"] > 30
    assert report["pieces"][0]["piece"] == tokenizer.pieces()[report["pieces"][0]["id"]]
    assert tokenizer.eod not in tokenizer.encode("hepatitis </s>")

    text = run(*common, "--output", tmp_path / "again", "--show", 3)
    assert "16 learnt from" in text.stdout and "tokens/word" in text.stdout
    for name in ("tokenizer.json", "extension.json"):
        assert (tmp_path / "again" / name).read_bytes() == (output / name).read_bytes()


def test_too_little_text_is_status_2_and_leaves_nothing(base, corpus, tmp_path):
    done = run("--base", base, "--input", corpus, "--output", tmp_path / "more")
    assert done.returncode == 2
    assert "exactly 2000 are to be added" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "more").exists()


def test_an_output_that_exists_is_refused_before_anything_is_read(base, corpus, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "mine").touch()
    done = run("--base", base, "--input", corpus, "--output", tmp_path / "more")
    assert done.returncode == 2
    assert "exists and is not an empty folder" in done.stderr
    assert "documents" not in done.stderr


def test_help_has_an_example():
    assert "python tools/extend_tokenizer.py --base" in run("--help").stdout
