import pytest

from megatron_biollm.config import UserError
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.model.flops import flops_per_token
from megatron_biollm.recipes.benchmark import TrainBenchmark, benchmark_training
from megatron_biollm.recipes.speed_tables import table

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
    assert report["ratio"] == pytest.approx(ours["tokens_per_second"] / peer["tokens_per_second"])
    assert ours["tokens_per_second"] == pytest.approx(2 * 2 * 16 / ours["step_time_s"])
    assert ours["tflops"] == pytest.approx(
        ours["tokens_per_second"] * flops_per_token(ModelConfig(**SIZES)) / 1e12
    )
    assert ours["of_ceiling"] == pytest.approx(ours["tflops"] / report["ceilings"]["matrix_tflops"])
    assert report["bars"][0]["value"] == report["ratio"]
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
        ({"model": ModelConfig(preset="tiny")}, "no vocabulary size"),
    ],
)
def test_options_that_cannot_be_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        options(**changes)
