import json
import os
import socket
import subprocess

import pytest

from megatron_biollm.launch import lock
from megatron_biollm.launch.lock import Holder

FIRST, SECOND = Holder("1_0", "1"), Holder("2_0", "2")


def test_a_second_job_is_kept_out_while_the_first_one_runs(tmp_path):
    assert lock.take(tmp_path, FIRST, {"1", "2"}) == FIRST
    assert lock.take(tmp_path, SECOND, {"1", "2"}) == FIRST
    lock.release(tmp_path, "1_0")
    assert lock.take(tmp_path, SECOND, {"1", "2"}) == SECOND
    assert [path.name for path in tmp_path.iterdir()] == ["lock.json"]


def test_a_dead_jobs_lock_is_taken_over(tmp_path):
    lock.take(tmp_path, FIRST, {"1"})
    assert lock.take(tmp_path, SECOND, {"2", "3"}) == SECOND
    assert lock.holder_of(tmp_path) == SECOND


def test_a_requeued_job_takes_over_its_own_lock(tmp_path):
    lock.take(tmp_path, FIRST, {"1"})
    again = Holder("1_1", "1")
    assert lock.take(tmp_path, again, {"1"}) == again


def test_where_slurm_does_not_answer_a_job_is_taken_for_alive(tmp_path):
    lock.take(tmp_path, FIRST, None)
    assert lock.take(tmp_path, SECOND, None) == FIRST


def test_only_the_holder_gives_the_lock_back(tmp_path):
    lock.take(tmp_path, FIRST, {"1"})
    lock.release(tmp_path, "2_0")
    assert lock.holder_of(tmp_path) == FIRST


def test_a_torn_lock_is_nobodys(tmp_path):
    (tmp_path / lock.LOCK).write_text("{")
    assert lock.take(tmp_path, FIRST, {"1"}) == FIRST


@pytest.fixture
def dead_process():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_process_of_this_host_is_alive_as_long_as_it_runs(tmp_path, dead_process):
    here = socket.gethostname()
    assert lock.take(tmp_path, lock.this_process("a_0"), set()).pid == os.getpid()
    assert lock.take(tmp_path, FIRST, {"1"}).pid == os.getpid()
    (tmp_path / lock.LOCK).write_text(json.dumps(vars(Holder("b_0", None, here, dead_process))))
    assert lock.take(tmp_path, FIRST, {"1"}) == FIRST


def test_a_process_elsewhere_is_alive_while_it_touches_the_lock(tmp_path):
    path = tmp_path / lock.LOCK
    path.write_text(json.dumps(vars(Holder("b_0", None, "another host", 1))))
    assert lock.take(tmp_path, FIRST, {"1"}).host == "another host"
    old = path.stat().st_mtime - lock.STALE_S - 1
    os.utime(path, (old, old))
    assert lock.take(tmp_path, FIRST, {"1"}) == FIRST
