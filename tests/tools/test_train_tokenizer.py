import json
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "train_tokenizer.py"


def run(*arguments):
    return subprocess.run(
        [sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True
    )


def test_it_makes_a_tokenizer_and_prints_its_manifest(tmp_path):
    words = " ".join(f"{a}{b}{c}tion" for a in "bcdf" for b in "aeiou" for c in "lmnr")
    (tmp_path / "a.txt").write_text(words)
    output = tmp_path / "tokenizer"
    done = run("--input", tmp_path / "a.txt", "--vocab-size", 512, "--output", output, "--json")
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)
    assert manifest["name"] == "tokenizer" and 280 < manifest["vocab_size"] <= 512
    assert sorted(p.name for p in output.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]


def test_an_empty_corpus_is_status_2_and_leaves_nothing(tmp_path):
    (tmp_path / "a.csv").write_text("x")
    done = run("--input", tmp_path, "--vocab-size", 512, "--output", tmp_path / "tokenizer")
    assert done.returncode == 2
    assert "error: the corpus is empty" in done.stderr and "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]
