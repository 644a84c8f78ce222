"""tools/verify_run.py and tools/inspect_run.py on the folder of a run."""

import json
import subprocess
import sys

import pytest

from tests.integration.recipe import ROOT
from tests.recipes.test_ledger import Books


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    made = Books(folder)
    made.skip(6)
    made.incidents[0] |= {
        "time": "2026-01-01T00:00:00", "what": "loss", "kind": "non-finite", "value": "nan",
        "threshold": None, "reason": "", "documents": [{}] * 16,
    }  # fmt: skip
    made.check(rehash=0)
    lines = "".join(f"pmid{n}\n" for n in range(200))
    (folder / "corpus.ids").write_text(lines)
    return made


def run(tool, *arguments):
    command = [sys.executable, str(ROOT / "tools" / tool), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_books_that_balance_are_shown(books):
    done = run("verify_run.py", books.run_dir, "--rehash", "all")
    assert done.returncode == 0, done.stderr
    assert "the ledger balances" in done.stdout and "rehashed           12 batches" in done.stdout
    assert "trained           176 samples  0-79, 96-191" in done.stdout


def test_incidents_are_listed_with_documents_and_text(books):
    done = run("inspect_run.py", books.run_dir, "--show", "1")
    assert done.returncode == 0, done.stderr
    assert "step 6, 2026-01-01T00:00:00: non-finite loss nan: skip; 16 samples" in done.stdout
    assert "sample 80 of" in done.stdout and "documents pmid" in done.stdout
    assert "    | w" in done.stdout


def test_any_samples_are_shown_as_json(books):
    done = run("inspect_run.py", books.run_dir, "--samples", "3:5", "--json")
    shown = json.loads(done.stdout)
    assert [sample["position"] for sample in shown] == [3, 4]
    for sample in shown:
        assert sample["ids"] == [f"pmid{number}" for number in sample["documents"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify_run.py", "nowhere"], "metrics.jsonl does not exist; give the run_dir of a run"),
        (["inspect_run.py", "nowhere", "--samples", "1:2"], "config.yaml does not exist; give"),
        (["inspect_run.py", "nowhere", "--samples", "2:1"], "--samples is 2:1; give FIRST:END"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path, arguments, message):
    tool, folder, *rest = arguments
    done = run(tool, tmp_path / folder, *rest)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
