"""A heartbeat tells what the main thread is doing, and stays behind when it does nothing more."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron_biollm.launch.heartbeat import (
    Pulse,
    beat_path,
    process_birth,
    process_state,
    read_beat,
    read_beats,
)
from megatron_biollm.training.phases import START_UP, Phases
from tests.distributed import ROOT

proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")


def beat_within(phases, tmp_path):
    pulse = Pulse(tmp_path, 3, 60.0, lambda: phases.view)
    pulse.beat()
    return read_beat(tmp_path, 3)


def test_a_beat_tells_step_phase_place_and_stack(tmp_path):
    phases = Phases()
    assert beat_within(phases, tmp_path).phase == START_UP
    phases.stepped(7)
    with phases("optimizer"):
        beat = beat_within(phases, tmp_path)
    assert (beat.rank, beat.step, beat.phase, beat.pid) == (3, 7, "optimizer", os.getpid())
    assert any(call.endswith(" beat_within") for call in beat.stack)
    assert [path.name for path in beat_path(tmp_path, 3).parent.iterdir()] == ["rank_00003.json"]


def test_progress_counts_phases_and_signs_within(tmp_path):
    phases = Phases()
    before = beat_within(phases, tmp_path)
    with phases("forward and backward"):
        phases.tick()
    after = beat_within(phases, tmp_path)
    assert after.progress == before.progress + 3
    assert after.seconds < before.seconds + 60


def test_a_beat_that_is_absent_or_torn_says_nothing(tmp_path):
    beat_path(tmp_path, 1).parent.mkdir()
    beat_path(tmp_path, 1).write_text('{"rank": 1')
    assert read_beats(tmp_path, 2) == {0: None, 1: None}


def test_a_disk_that_takes_no_beat_ends_no_run(tmp_path):
    (tmp_path / "heartbeats").write_text("a file, not a folder")
    assert beat_within(Phases(), tmp_path) is None


BEATING = """
import sys, time
from megatron_biollm.launch.heartbeat import Pulse
from megatron_biollm.training.phases import Phases
phases = Phases()
Pulse(sys.argv[1], 0, 0.02, lambda: phases.view).start()
def waiting_for_godot():
    time.sleep(600)
with phases("waiting"):
    waiting_for_godot()
"""


@proc
def test_a_stopped_process_leaves_its_last_phase_and_stack(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", BEATING, str(tmp_path)], cwd=ROOT)
    try:
        while (
            (beat := read_beat(tmp_path, 0)) is None
            or beat.phase != "waiting"
            or not any(call.endswith("waiting_for_godot") for call in beat.stack)
        ):
            time.sleep(0.02)
        process.send_signal(signal.SIGSTOP)
        while process_state(process.pid) != "T":
            time.sleep(0.02)
        last = read_beat(tmp_path, 0)
        assert (last.phase, last.pid) == ("waiting", process.pid)
        assert last.born == process_birth(process.pid) > 0
    finally:
        process.kill()
        process.wait()
    assert process_state(process.pid) == "" and process_birth(process.pid) == 0
    assert read_beat(tmp_path, 0) == last
