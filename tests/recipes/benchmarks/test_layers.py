from dataclasses import replace

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.model.flops import flops_per_token, token_flops
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.recipes.benchmarks.layer_sides import Passes, layers_flops, rehearse_layers
from megatron_biollm.recipes.benchmarks.layers import LayersBenchmark, benchmark_layers, layer_bars
from megatron_biollm.recipes.benchmarks.speed_tables import table

SIZES = {
    "num_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "ffn_hidden_size": 64,
    "seq_length": 32, "vocab_size": 64,
}  # fmt: skip


def test_every_variant_has_a_row_and_one_that_cannot_run_has_its_reason(world):
    options = LayersBenchmark(model=ModelConfig(**SIZES), device="cpu", repeats=1, layers=1)
    report = world.run(1, benchmark_layers, options, joined=False)[0]
    rows = {row["name"]: row for row in report["rows"]}
    assert rows["megatron_biollm: local"]["tokens_per_second"] > 0
    assert rows["megatron_biollm: local, selective"]["tokens_per_second"] > 0
    assert rows["transformers"]["tokens_per_second"] > 0
    assert "needs a GPU" in rows["megatron_biollm: transformer_engine"]["reason"]
    assert report["options"]["model"]["num_layers"] == 1
    assert "not run: model.transformer_impl=transformer_engine" in table(report)


def test_the_layers_flops_are_the_models_without_its_output_layer():
    model = ModelConfig(**SIZES)
    assert layers_flops(model) == flops_per_token(model) - 3 * token_flops(model).output


def test_the_rehearsed_memory_grows_with_the_layers_weights_and_gradients(world):
    model = ModelConfig(**SIZES)
    passes = Passes(rows=1, count=2, bf16=True)
    one, two = (
        world.run(
            1, rehearse_layers, replace(model, num_layers=n), ParallelConfig(), passes, joined=False
        )[0]
        for n in (1, 2)
    )
    layer = 2 * 32 * 32 + 2 * 32 * 32 + 3 * 32 * 64
    assert two - one >= layer * (2 + 4)


def row(name, **values):
    empty = dict.fromkeys(("tokens_per_second", "mfu", "of_ceiling", "peak_memory_bytes"))
    return {"name": name, **empty, **values}


def test_bars_of_a_gpu_take_the_best_variant_and_the_worst_prediction():
    rows = [
        row("megatron_biollm: local", tokens_per_second=10, mfu=0.5, of_ceiling=0.6,
            peak_memory_bytes=100, rehearsal_error=-0.05, planner_error=0.2),
        row("megatron_biollm: transformer_engine", tokens_per_second=12, mfu=0.6, of_ceiling=0.75,
            peak_memory_bytes=120, rehearsal_error=None, planner_error=None),
        row("megatron_biollm: transformer_engine, fp8", tokens_per_second=18, mfu=0.9),
        row("transformers", tokens_per_second=8, peak_memory_bytes=80),
    ]  # fmt: skip
    bars = {bar.name: bar for bar in layer_bars(rows, "cuda")}
    assert bars["share of the peak (MFU), nothing recomputed"].value == 0.6
    assert bars["share of the ceiling, nothing recomputed"].met
    assert bars["share of the ceiling, selective recomputation"].met is None
    assert bars["speed beside the fastest peer"].value == 1.5
    assert bars["FP8 beside bf16"].value == 1.5
    assert bars["peak memory beside the leanest peer's"].value == 1.25
    assert bars["memory, error of rehearsal and planner"].value == 0.2


def test_an_unknown_variant_is_refused():
    with pytest.raises(UserError, match="apex"):
        LayersBenchmark(model=ModelConfig(**SIZES), variants=["apex"])
