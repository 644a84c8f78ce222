"""The real benchmark files beside the checkout, and what is true of every benchmark's score."""

from pathlib import Path

import pytest

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "benchmarks"
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="no real benchmark files beside the checkout"
)


def real_items(benchmark, split="", files=None, **conventions):
    """The items of a split of the real files."""
    return benchmark.read(benchmark.source(DATA, split, files), benchmark.choose(conventions))


def check_choices(benchmark, items, **conventions):
    """Gold scores 1, nothing 0, and one wrong answer takes its share; ids are unique."""
    conventions = benchmark.choose(conventions)
    gold = [item.answer for item in items]

    def value(predictions):
        return benchmark.score(items, predictions, conventions).value("accuracy")

    assert len({item.id for item in items}) == len(items)
    assert value(gold) == 1.0
    assert value([None] * len(items)) == 0.0
    one_wrong = [(gold[0] + 1) % len(items[0].choices), *gold[1:]]
    assert value(one_wrong) == pytest.approx(1 - 1 / len(items), abs=1e-12)
