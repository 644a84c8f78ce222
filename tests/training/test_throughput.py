import pytest

from megatron_biollm.training.throughput import Throughput

METER = Throughput(
    flops_per_token=428e9, num_devices=128, peak_tflops=312.0, peak_source="data sheet of A100"
)


def test_speed_is_tokens_over_time_and_time_is_per_step():
    row = METER.row(tokens=2_097_152 * 2, seconds=104.0, steps=2, peak_memory_bytes=62_500_000_000)
    assert row["step_time_s"] == 52.0
    assert row["tokens_per_second"] == pytest.approx(40_330, rel=1e-4)
    assert row["peak_memory_gb"] == 62.5


def test_mfu_is_the_share_of_the_peak_of_all_devices():
    # Meditron-70B: 40,200 tokens/s on 128 A100 are 42.3 % at 6N with N = 70e9.
    meter = Throughput(6 * 70e9, 128, 312.0, "data sheet of A100")
    row = meter.row(tokens=40_200, seconds=1.0)
    assert row["tflops_per_device"] == pytest.approx(131.9, abs=0.05)
    assert row["mfu"] == pytest.approx(0.423, abs=0.0005)


def test_an_unknown_peak_gives_no_mfu_and_says_why():
    meter = Throughput(1e9, 1, 0.0, "unknown GPU X; set logging.peak_tflops")
    assert meter.row(tokens=10, seconds=1.0)["mfu"] is None
    assert "unknown GPU X; set logging.peak_tflops" in meter.describe()


def test_the_formula_and_the_peak_are_named():
    assert METER.describe() == (
        "MFU = tokens per second x FLOPs per token / (devices x peak): "
        "128 devices of 312 TFLOP/s (data sheet of A100)"
    )


def test_a_row_has_the_fields_of_the_metrics_file():
    assert list(METER.row(tokens=1, seconds=1.0)) == [
        "step_time_s",
        "tokens_per_second",
        "tflops_per_device",
        "mfu",
        "peak_memory_gb",
    ]
