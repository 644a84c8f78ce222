"""The real samples beside the checkout and what their README says of them."""

import re
from collections import Counter
from pathlib import Path

import pytest

from megatron_biollm.corpus.read import read_file
from megatron_biollm.corpus.report import FileReport

SAMPLES = Path(__file__).parents[2].parent / "shared" / "data" / "corpus"
needs_samples = pytest.mark.skipif(
    not SAMPLES.is_dir(), reason="no sample of real source files beside the checkout"
)


def expected_counts(folder):
    """(file, documents) of each row of the README's table for a folder."""
    readme = SAMPLES / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    rows = (line.split(" | ") for line in text.splitlines() if line.startswith(f"| {folder}/"))
    return [(cells[0].strip("| "), int(cells[4])) for cells in rows]


def read_sample(file):
    """All documents of a sample file, and the report."""
    report = FileReport(file)
    return list(read_file(SAMPLES / file, report)), report


def word_coverage(wanted, found):
    """Share of the letters and digits of `wanted` whose words, as often, are in `found` too."""
    wanted, found = (Counter(re.findall(r"[^\W_]+", text)) for text in (wanted, found))
    letters = sum(len(word) * count for word, count in wanted.items())
    missing = sum(len(word) * count for word, count in (wanted - found).items())
    return 1 - missing / max(letters, 1)
