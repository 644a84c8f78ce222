"""The process that writes a rank's files never outlives the rank, and never waits for the dead."""

import multiprocessing
import os
import queue
import signal
import time
from pathlib import Path

import pytest

from megatron_biollm.checkpoint.write_results import WriteResults, write_guarded

FORK = multiprocessing.get_context("fork")
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture
def results():
    results = WriteResults()
    yield results
    results.close()


def in_a_process(target, *args):
    process = FORK.Process(target=target, args=args)
    process.start()
    return process


def test_a_message_of_any_size_comes_back_from_a_forked_process(results):
    message = {0: ["x" * 1_000_000]}
    process = in_a_process(write_guarded, os.getpid(), results.put, message)
    process.join(timeout=20)
    assert results.get_nowait() == message


def test_a_writer_that_dies_first_leaves_no_message(results):
    in_a_process(os._exit, 1).join(timeout=20)
    with pytest.raises(queue.Empty):
        results.get_nowait()


def start_helper_and_wait(pipe):
    """Like core's writers: it waits for a helper that never says it has finished."""
    helper = in_a_process(time.sleep, 60)
    pipe.send(helper.pid)
    time.sleep(60)


def test_a_writer_does_not_wait_for_a_helper_that_was_killed():
    ours, theirs = FORK.Pipe()
    writer = in_a_process(write_guarded, os.getpid(), start_helper_and_wait, theirs)
    helper = ours.recv()
    time.sleep(0.3)
    os.kill(helper, signal.SIGKILL)
    writer.join(timeout=20)
    assert writer.exitcode == 1


def start_writer_and_wait(pipe):
    """Like a rank with a save in the background."""
    writer = in_a_process(write_guarded, os.getpid(), time.sleep, 60)
    time.sleep(0.3)
    pipe.send(writer.pid)
    time.sleep(60)


def test_a_writer_ends_with_its_rank():
    ours, theirs = FORK.Pipe()
    rank = in_a_process(start_writer_and_wait, theirs)
    writer = ours.recv()
    os.kill(rank.pid, signal.SIGKILL)
    rank.join(timeout=20)
    deadline = time.monotonic() + 20
    while is_running(writer) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(writer)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
