"""The real benchmark files beside the checkout."""

from pathlib import Path

import pytest

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "benchmarks"
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="no real benchmark files beside the checkout"
)


def real_items(benchmark, split="", files=None, **conventions):
    """The items of a split of the real files."""
    return benchmark.read(benchmark.source(DATA, split, files), benchmark.choose(conventions))
