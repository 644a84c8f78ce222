"""What a run tells of its start."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron_biollm.recipes.startup import STARTUP_FILE, Startup, process_start
from megatron_biollm.training.state import TrainState

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@pytest.fixture
def startup(tmp_path):
    (tmp_path / "logs").mkdir()
    return Startup(tmp_path)


def test_the_parts_add_up_and_are_told_once(startup, tmp_path):
    startup.done("tokenizer")
    startup.done("data")
    startup(TrainState(), {})
    told = json.loads((tmp_path / "logs" / STARTUP_FILE).read_text())
    parts = {name: seconds for name, seconds in told.items() if name != "total"}
    assert list(parts)[-3:] == ["tokenizer", "data", "first step"]
    assert told["total"] == pytest.approx(sum(parts.values()))
    startup(TrainState(), {})
    assert json.loads((tmp_path / "logs" / STARTUP_FILE).read_text()) == told


def test_only_rank_0_tells(startup, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    startup(TrainState(), {})
    assert not (tmp_path / "logs" / STARTUP_FILE).exists()


@linux
def test_the_clock_begins_with_the_process(startup):
    assert startup.parts["imports"] > 0


@linux
def test_a_process_with_a_strange_name_has_a_start_too(tmp_path):
    strange = tmp_path / "a) 1 (b"
    strange.symlink_to(sys.executable)
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    with subprocess.Popen([strange, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = process_start(process.pid)
        process.communicate(b"\n")
    assert before - 0.02 <= started <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_of_a_process_that_is_not_there_nothing_is_known():
    assert process_start(2**22 + 1) is None
