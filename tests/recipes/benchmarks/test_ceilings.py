import torch

from megatron_biollm.device.runtime import select_device
from megatron_biollm.recipes.benchmarks import ceilings


def test_the_best_rate_is_no_lower_than_the_median_and_the_ceiling_is_the_highest_median(
    monkeypatch,
):
    monkeypatch.setattr(ceilings, "CPU_SHAPES", ((16, 32, 8), (64, 64, 64)))
    monkeypatch.setattr(ceilings, "CPU_COPY_BYTES", 2**16)
    monkeypatch.setitem(ceilings.SECONDS, "cpu", 0.0)
    found = ceilings.measure_ceilings(select_device("cpu"), bf16=False)
    assert [(one["m"], one["n"], one["k"]) for one in found["products"]] == list(
        ceilings.CPU_SHAPES
    )
    assert all(one["best_tflops"] >= one["median_tflops"] > 0 for one in found["products"])
    assert found["matrix_tflops"] == max(one["median_tflops"] for one in found["products"])
    assert found["copy_gb_per_second_best"] >= found["copy_gb_per_second"] > 0
    assert found["dtype"] == "float32"
    assert "GB/s" in ceilings.ceilings_line(found)


def test_bf16_is_measured_in_bf16(monkeypatch):
    monkeypatch.setattr(ceilings, "CPU_SHAPES", ((16, 16, 16),))
    monkeypatch.setitem(ceilings.SECONDS, "cpu", 0.0)
    seen = []
    matmul = torch.matmul
    monkeypatch.setattr(torch, "matmul", lambda a, b: seen.append(a.dtype) or matmul(a, b))
    assert ceilings.measure_ceilings(select_device("cpu"), bf16=True)["dtype"] == "bfloat16"
    assert set(seen) == {torch.bfloat16}
