"""The benchmark of checkpoints measures both formats and leaves nothing behind."""

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.recipes.benchmarks.checkpoint import (
    CheckpointBenchmark,
    benchmark_checkpoints,
)
from megatron_biollm.recipes.benchmarks.checkpoint_tables import table

TINY = {
    "num_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "ffn_hidden_size": 96,
    "seq_length": 32,
    "vocab_size": 512,
}


def measured(scratch):
    model = ModelConfig(**TINY)
    return benchmark_checkpoints(CheckpointBenchmark(model=model, repeats=1, scratch=str(scratch)))


def test_it_measures_both_formats_and_cleans_up(world, tmp_path):
    first, second = world.run(2, measured, tmp_path, joined=False)
    assert (first["rank"], second["rank"], first["processes"]) == (0, 1, 2)
    assert [row["name"] for row in first["stalls"]] == ["reshardable", "fast"]
    for row in first["stalls"]:
        assert row["held_up_s"] > 0 and row["stall_s"] > 0 and row["steps_meanwhile"] >= 1
        assert row["stall_s"] >= row["save_s"] and row["bytes"] > 500_000
    assert len(first["rows"]) == 6
    for row in first["rows"]:
        assert row["met"] == (row["ratio"] >= row["bar"]) and row["ours"] > 0
    assert "| load, from memory, fast |" in table(first)
    assert "2 processes" in table(first) and "| fast |" in table(first)
    assert not list(tmp_path.iterdir())


def test_a_model_without_a_vocabulary_is_refused():
    with pytest.raises(UserError, match="has no vocabulary size; give model.vocab_size"):
        CheckpointBenchmark(model=ModelConfig(**{**TINY, "vocab_size": None}))
