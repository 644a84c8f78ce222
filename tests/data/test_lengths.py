import numpy as np
import pytest

from megatron_biollm.config import UserError
from megatron_biollm.data.lengths import Lengths, histogram, plot_lengths


def lengths(values, pieces=1):
    made = Lengths()
    for part in np.array_split(np.array(values, np.int64), pieces):
        made.add(part)
    return made


def test_figures_are_those_of_numpy_also_beyond_what_is_counted_one_by_one():
    dice = np.random.default_rng(1)
    values = np.concatenate([dice.integers(0, 5000, 2000), dice.integers(1 << 20, 1 << 22, 300)])
    dice.shuffle(values)
    made = lengths(values, pieces=7)
    assert (made.documents, made.total) == (2300, values.sum())
    assert made.empty == (values == 0).sum()
    shares = [0.0, 0.1, 0.5, 0.9, 0.99, 1.0]
    expected = np.quantile(values, shares, method="inverted_cdf")
    assert made.quantiles(shares) == expected.tolist()
    summary = made.summary()
    assert summary["mean"] == pytest.approx(values.mean())
    assert (summary["min"], summary["max"]) == (values.min(), values.max())


def test_bins_double_and_hold_every_document_and_token_once():
    made = lengths([0, 0, 1, 2, 3, 4, 7, 8, 1 << 21])
    assert made.bins()[:5] == [(0, 2, 0), (1, 1, 1), (2, 2, 5), (4, 2, 11), (8, 1, 8)]
    assert made.bins()[-1] == (1 << 21, 1, 1 << 21)
    assert sum(count for _, count, _ in made.bins()) == 9
    assert sum(own for *_, own in made.bins()) == made.total


def test_no_document_has_a_summary():
    assert Lengths().summary() | {"bins": []} == Lengths().summary()
    assert Lengths().summary()["median"] == 0


def test_the_histogram_shows_a_bar_where_there_is_a_document():
    lines = histogram(lengths([100] * 999 + [5000]), "tokens")
    assert lines[1].split() == ["64", "999", "99.9%", "95.2%", "#" * 40]
    assert lines[-1].split() == ["4,096", "1", "0.1%", "4.8%", "#"]


def test_the_picture_is_drawn_in_one_step(tmp_path):
    several = {"one": lengths([0, 5, 300]), "two": lengths([9000] * 5), "none": lengths([])}
    assert plot_lengths(several, "tokens", tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    with pytest.raises(UserError, match="none of .png"):
        plot_lengths(several, "tokens", tmp_path / "a.bmp")
