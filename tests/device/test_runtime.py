import pytest
import torch

from megatron_biollm.device.runtime import _measured_tflops, select_device


def test_the_peak_of_a_cpu_says_how_it_was_measured():
    peak, source = select_device("cpu").peak_tflops(bf16=False)
    assert peak > 0 and source == f"measured fp32 matmul, {torch.get_num_threads()} threads"


def test_large_products_that_were_all_interrupted_do_not_lower_the_peak(monkeypatch):
    now, asked = 0.0, 0

    def clock():
        nonlocal now, asked
        now, asked = now + (0.001 if asked < 110 else 0.4), asked + 1
        return now

    monkeypatch.setattr("megatron_biollm.device.runtime.time.perf_counter", clock)
    alone = 2 * 256**3 / 0.001 / 1e12
    assert _measured_tflops((256, 1024), seconds=0.105) == pytest.approx(alone)
