import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "quickstart" / "make_corpus.py"


@pytest.fixture(scope="module")
def make_corpus():
    return runpy.run_path(str(SCRIPT))["make_corpus"]


@pytest.fixture(scope="module")
def documents(make_corpus):
    return list(make_corpus(400))


def test_the_same_seed_gives_the_same_documents_and_another_seed_others(make_corpus, documents):
    assert list(make_corpus(400)) == documents
    assert list(make_corpus(400, seed=1)) != documents


def test_a_larger_corpus_begins_with_the_smaller_one(make_corpus, documents):
    assert list(make_corpus(10)) == documents[:10]


def test_no_placeholder_is_left(documents):
    assert not [d["id"] for d in documents if re.search(r"[{}]", d["text"] + d["title"])]


def test_ids_are_unique_and_cannot_be_taken_for_real_ones(documents):
    assert len({d["id"] for d in documents}) == len(documents)
    assert all(re.fullmatch(r"SAMPLE-\d{6}", d["id"]) for d in documents)


def test_hardly_any_text_appears_twice(documents):
    assert len({d["text"] for d in documents}) > 0.99 * len(documents)


def test_every_interval_contains_its_estimate(documents):
    pattern = re.compile(r"(?:difference|hazard ratio) ([\d.]+)[^;]*; 95% CI ([\d.]+) to ([\d.]+)")
    found = [tuple(map(float, m)) for d in documents for m in pattern.findall(d["text"])]
    assert len(found) > 200
    assert all(low <= estimate <= high for estimate, low, high in found)


def test_a_drug_always_treats_the_same_disease(documents):
    seen = {}
    for title in (d["title"] for d in documents):
        if match := re.search(r"Efficacy and safety of (\w+) in (.+?): ", title):
            seen.setdefault(match[1], set()).add(match[2])
    assert len(seen) > 10
    assert all(len(diseases) == 1 for diseases in seen.values())


def test_the_script_writes_jsonl_and_nothing_else(tmp_path, documents):
    output = tmp_path / "new" / "corpus.jsonl"
    done = subprocess.run(
        [sys.executable, SCRIPT, output, "--documents", "20"],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert [json.loads(line) for line in output.read_text().splitlines()] == documents[:20]
    assert list(output.parent.iterdir()) == [output]


def test_an_empty_corpus_is_refused(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "corpus.jsonl", "--documents", "0"],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert "--documents is 0" in done.stderr
    assert not list(tmp_path.iterdir())
