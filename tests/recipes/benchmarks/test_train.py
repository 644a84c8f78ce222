import importlib.util

import pytest
import torch

from megatron_biollm.config import UserError
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.model.flops import flops_per_token
from megatron_biollm.recipes.benchmarks.speed_tables import table
from megatron_biollm.recipes.benchmarks.train import (
    TrainBenchmark,
    benchmark_training,
    training_bars,
)

SIZES = {
    "num_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "ffn_hidden_size": 16,
    "seq_length": 16, "vocab_size": 64, "make_vocab_size_divisible_by": 64,
}  # fmt: skip


def options(**changes):
    plain = {"model": ModelConfig(**SIZES), "device": "cpu", "repeats": 2, "micro_batch_size": 2}
    return TrainBenchmark(**plain | changes)


def test_the_report_has_both_sides_their_ratio_ceilings_and_what_it_was_measured_on(world):
    report = world.run(1, benchmark_training, options(num_microbatches=2), joined=False)[0]
    ours, peer = report["rows"]
    assert (ours["name"], peer["name"]) == ("megatron_biollm", "transformers")
    assert ours["reason"] == peer["reason"] == ""
    ratio = report["ratios"]["transformers"]
    assert ratio == pytest.approx(ours["tokens_per_second"] / peer["tokens_per_second"])
    assert ours["tokens_per_second"] == pytest.approx(2 * 2 * 16 / ours["step_time_s"])
    assert ours["tflops"] == pytest.approx(
        ours["tokens_per_second"] * flops_per_token(ModelConfig(**SIZES)) / 1e12
    )
    assert ours["of_ceiling"] == pytest.approx(ours["tflops"] / report["ceilings"]["matrix_tflops"])
    assert report["bars"][0]["value"] == ratio
    assert {"hardware", "versions", "date", "flops_formula", "peak_source"} <= set(report)
    assert "| transformers |" in table(report)


def test_a_recorded_step_of_each_side_is_in_the_report(world):
    report = world.run(1, benchmark_training, options(profile=True, visits=1), joined=False)[0]
    assert set(report["profiles"]) == {"megatron_biollm", "transformers"}
    assert "all others" in table(report)


def test_under_bf16_each_precision_of_the_peer_is_a_side(world):
    report = world.run(1, benchmark_training, options(bf16=True), joined=False)[0]
    assert [row["name"] for row in report["rows"][1:]] == [
        "transformers (bf16)", "transformers (autocast)",
    ]  # fmt: skip
    assert all(row["tokens_per_second"] for row in report["rows"])


def test_torchtitan_is_a_row_with_its_reason_where_it_cannot_run(world):
    if importlib.util.find_spec("torchtitan") and torch.cuda.is_available():
        pytest.skip("torchtitan can run here")
    report = world.run(1, benchmark_training, options(peers=["torchtitan"]), joined=False)[0]
    ours, titan = report["rows"]
    assert ours["reason"] == ""
    assert titan["name"] == "torchtitan"
    assert titan["reason"]
    assert report["bars"] == [
        {"name": "speed beside torchtitan", "value": None, "bar": 1.0, "at_least": True,
         "met": None}
    ]  # fmt: skip


def row(name, rate, memory, **more):
    return {"name": name, "tokens_per_second": rate, "peak_memory_bytes": memory, **more}


def test_bars_of_a_gpu_compare_with_the_best_of_each_peer():
    rows = [
        row("megatron_biollm", 12.0, 90, state="", rehearsal_error=-0.02, planner_error=0.05),
        row("transformers (bf16)", 9.0, 60, state="bf16 weights"),
        row("transformers, compiled (autocast)", 10.0, 100, state="fp32 weights"),
        row("torchtitan", None, None, state="fp32 weights"),
    ]
    bars = {bar.name: bar for bar in training_bars(rows, "cuda", ["transformers", "torchtitan"])}
    assert bars["speed beside the fastest transformers loop"].value == pytest.approx(1.2)
    assert bars["speed beside torchtitan"].met is None
    assert bars["peak memory beside the leanest peer's"].value == pytest.approx(1.5)
    assert bars["peak memory beside that of peers with fp32 state"].met
    assert bars["memory, error of rehearsal and planner"].value == 0.05


@pytest.mark.slow
def test_processes_share_the_micro_batches_of_a_step():
    report = benchmark_training(options(processes=2, num_microbatches=2))
    assert all(row["reason"] == "" for row in report["rows"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"processes": 2}, "num_microbatches=1 is not divisible"),
        ({"compile_peer": "perhaps"}, "choose auto, on or off"),
        ({"peer_states": ["fp8"]}, "fp8"),
        ({"peers": ["lightning"]}, "lightning.* choose from transformers, torchtitan"),
        ({"model": ModelConfig(preset="tiny")}, "no vocabulary size"),
    ],
)
def test_options_that_cannot_be_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        options(**changes)
