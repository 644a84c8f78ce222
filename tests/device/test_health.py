"""What nvidia-smi prints is understood; what it does not know is left out."""

import shutil

import pytest

from megatron_biollm.device.health import gpu_health, parse_health

WELL = "NVIDIA H100 80GB HBM3, 550.54, 1980, 4, 0, Not Active, Not Active, Not Active"


def test_a_healthy_gpu_has_a_name_and_a_clock_and_nothing_else():
    assert parse_health(WELL) == {
        "name": "NVIDIA H100 80GB HBM3",
        "driver": "550.54",
        "clock_mhz": "1980",
    }


@pytest.mark.parametrize(
    ("old", "new", "key", "value"),
    [
        (", 4, 0,", ", 70000, 0,", "in_use", "70000"),
        (", 4, 0,", ", 4, 2,", "memory_errors", "2"),
        ("0, Not Active", "0, Active", "throttled", "hot"),
        ("Not Active, Not Active, Not Active", "Active, Not Active, Active", "throttled",
         "hot, power brake"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(old, new, key, value):
    assert parse_health(WELL.replace(old, new))[key] == value


def test_values_that_a_gpu_lacks_are_left_out():
    line = WELL.replace(", 4, 0,", ", 4, [N/A],")
    assert "memory_errors" not in parse_health(line)
    assert parse_health("No devices were found") == {}


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU here")
def test_without_a_gpu_there_is_nothing_to_tell():
    assert gpu_health(0) == {}
