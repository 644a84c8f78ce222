"""The benchmark of conversion: what it refuses, what it shows, and that the round trip is exact."""

import shutil

import pytest
import torch

from megatron_biollm.config import UserError
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.recipes.benchmarks.convert import (
    ConvertBenchmark,
    benchmark_conversion,
    require_equal,
    table,
)
from megatron_biollm.recipes.convert_slice import write_slice


@pytest.fixture
def sizes():
    return small(num_layers=2, hidden_size=64, ffn_hidden_size=128)


def small(**widths):
    return ModelConfig(
        num_attention_heads=16, num_query_groups=8, seq_length=64, vocab_size=2100, **widths
    )


@pytest.mark.slow
def test_both_directions_with_one_process_and_with_two(tmp_path):
    model = small(num_layers=4, hidden_size=1024, ffn_hidden_size=3584)
    report = benchmark_conversion(
        ConvertBenchmark(model, workers=[1, 2], repeats=1, scratch=str(tmp_path))
    )
    sides = [(row["name"], row["workers"]) for row in report["rows"]]
    assert sides == [("copy", None), ("to-hf", 1), ("to-hf", 2), ("from-hf", 1), ("from-hf", 2)]
    assert all(row["peak_rss_mb"] < 3000 for row in report["rows"][1:])
    assert "bit-equal after the round trip" in table(report)
    assert list(tmp_path.iterdir()) == []


def test_the_layout_of_a_slice_changes_no_weight(sizes, tmp_path):
    steps = [
        write_slice(tmp_path / f"tp{tp}", sizes, ParallelConfig(tp, pp), torch.bfloat16)
        for tp, pp in ((1, 1), (8, 2))
    ]
    require_equal(*steps, sizes)
    assert len(list(steps[1].glob("*.distcp"))) == 16


def test_a_changed_bit_is_named(sizes, tmp_path):
    one = write_slice(tmp_path / "one", sizes, ParallelConfig(8, 2), torch.bfloat16)
    other = shutil.copytree(one, tmp_path / "other")
    file = other / "__11_0.distcp"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        UserError, match=r"output_layer.weight differs after the round trip in rows"
    ):
        require_equal(one, other, sizes)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"workers": [1, 0]}, "0 must be at least 1"),
        ({"repeats": 0}, "0 must be at least 1"),
        ({"dtype": "int8"}, "--dtype int8 is unknown; there are: float32"),
    ],
)
def test_bad_options_are_refused(sizes, fields, words):
    with pytest.raises(UserError, match=words):
        ConvertBenchmark(sizes, **fields)


def test_too_small_a_disk_is_refused(tmp_path):
    huge = ModelConfig(preset="70b", vocab_size=34_000, num_layers=100_000)
    with pytest.raises(UserError, match=r"needs .* GB of disk and has .* fewer --layers"):
        benchmark_conversion(ConvertBenchmark(huge, scratch=str(tmp_path)))
