"""A process whose main thread makes no progress ends, with a report; one that does goes on."""

import subprocess
import sys

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.launch.config import WatchConfig
from megatron_biollm.launch.watchdog import HANG_STATUS
from tests.distributed import ROOT

WATCHED = """
import sys, time
from megatron_biollm.launch.config import WatchConfig
from megatron_biollm.launch.heartbeat import Pulse
from megatron_biollm.launch.watchdog import Watchdog
from megatron_biollm.log import setup_logging
from megatron_biollm.training.phases import Phases

setup_logging()
config = WatchConfig(heartbeat_seconds=0.1, hang_timeout_minutes=0.01, slow_timeout_minutes=10)
phases = Phases()
Pulse(sys.argv[1], 0, 0.1, lambda: phases.view).start()
watchdog = Watchdog(sys.argv[1], 0, 1, config, lambda: phases.view)
watchdog.start()

def reads_without_end():
    with phases("data"):
        time.sleep(60)

if sys.argv[2] == "hangs":
    phases.stepped(3)
    reads_without_end()
if sys.argv[2] == "works":
    phases.stepped(3)
    for _ in range(20):
        with phases("forward and backward"):
            time.sleep(0.1)
if sys.argv[2] == "starts":  # before the first step, longer is allowed
    time.sleep(2)
watchdog.stop()
"""


def watched(folder, what):
    command = [sys.executable, "-c", WATCHED, str(folder), what]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=50)


def test_a_main_thread_that_hangs_ends_the_process_with_a_report(tmp_path):
    done = watched(tmp_path, "hangs")
    assert done.returncode == HANG_STATUS, done.stderr
    assert "watch.hang_timeout_minutes=0.01" in done.stderr
    [report] = (tmp_path / "logs").glob("hang_*.txt")
    assert str(report) in done.stderr
    text = report.read_text()
    assert "rank 0" in text and "after step 3, in phase 'data'" in text
    assert "reads_without_end" in text


@pytest.mark.parametrize("what", ["works", "starts"])
def test_a_main_thread_that_works_or_starts_up_is_left_alone(tmp_path, what):
    done = watched(tmp_path, what)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"heartbeat_seconds": -1.0}, "must not be negative"),
        ({"heartbeat_seconds": 0.0}, "needs heartbeats"),
        ({"heartbeat_seconds": 200.0}, "less than two beats"),
        ({"slow_timeout_minutes": 1.0}, "must not be below"),
    ],
)
def test_a_watch_that_cannot_be_kept_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        WatchConfig(**values)


def test_everything_can_be_off():
    WatchConfig(heartbeat_seconds=0.0, hang_timeout_minutes=0.0, straggler_interval=0)
