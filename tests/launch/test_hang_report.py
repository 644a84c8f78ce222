"""Who holds up a run that hangs: the dead first, then the busy, then those that are behind."""

import os
import socket
from pathlib import Path

import pytest

from megatron_biollm.launch.hang_report import (
    Culprit,
    find_culprits,
    frozen_ranks,
    hang_text,
    waits_for_others,
    write_report,
)
from megatron_biollm.launch.heartbeat import Heartbeat, process_birth

WAITING = [
    "tools/pretrain.py:40 main",
    "megatron_biollm/training/step.py:120 _schedule",
    "/lib/python3.11/site-packages/torch/distributed/distributed_c10d.py:2800 all_reduce",
]
READING = ["tools/pretrain.py:40 main", "megatron_biollm/data/indexed.py:77 read"]


def beat(rank, stack=(), step=5, progress=50, host="node-2", **other):
    values = {"pid": 1000 + rank, "born": 1, "phase": "forward and backward", "seconds": 300.0}
    return Heartbeat(
        rank=rank, host=host, step=step, progress=progress, stack=list(stack), **values | other
    )


def test_ranks_without_a_new_beat_are_frozen():
    before = {0: beat(0, beat=1), 1: beat(1, beat=4), 2: None, 3: None}
    after = {0: beat(0, beat=2), 1: beat(1, beat=4), 2: None, 3: beat(3, beat=1)}
    assert frozen_ranks(before, after) == [1, 2]


def test_another_start_of_a_rank_is_not_frozen():
    assert frozen_ranks({0: beat(0, beat=3)}, {0: beat(0, pid=9, beat=3)}) == []


def test_the_dead_are_named_before_the_busy():
    beats = {0: beat(0, WAITING), 1: beat(1, READING), 2: None}
    assert find_culprits(beats, [2]) == [Culprit(2, "it has never given a sign of life")]
    far = find_culprits(beats, [1])
    assert far == [Culprit(1, "no sign of life: its process or the host node-2 is stopped or dead")]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")
def test_a_process_of_this_host_is_looked_at():
    here = {"host": socket.gethostname(), "pid": os.getpid()}
    alive = beat(0, **here, born=process_birth(os.getpid()))
    assert "lives, but writes nothing" in find_culprits({0: alive}, [0])[0].reason
    # The pid has been given to another process since.
    dead = beat(0, **here, born=1)
    assert "its process is dead" in find_culprits({0: dead}, [0])[0].reason


def test_the_one_that_waits_for_nobody_holds_up_the_others():
    beats = {0: beat(0, WAITING, step=6), 1: beat(1, READING), 2: beat(2, WAITING)}
    assert [culprit.rank for culprit in find_culprits(beats, [])] == [1]


def test_of_ranks_that_all_wait_the_one_behind_is_named():
    beats = {0: beat(0, WAITING), 1: beat(1, WAITING, progress=48), 2: beat(2, WAITING)}
    assert [culprit.rank for culprit in find_culprits(beats, [])] == [1]


def test_nobody_is_named_without_a_reason():
    beats = {rank: beat(rank, WAITING) for rank in range(3)}
    assert find_culprits(beats, []) == []
    assert "no rank is behind the others" in hang_text(beats, [], "rank 0: no progress")


def test_only_the_innermost_calls_tell_whether_a_rank_waits():
    assert waits_for_others(WAITING) and not waits_for_others(READING)
    assert not waits_for_others(WAITING[-1:] + ["some.py:1 call"] * 8)


def test_the_report_tells_culprit_phases_and_stacks(tmp_path):
    beats = {0: beat(0, WAITING, step=6), 1: beat(1, READING), 2: None}
    text = hang_text(beats, find_culprits(beats, [1]), "rank 0: no progress for 300 s")
    path = write_report(tmp_path, text)
    assert path.parent == tmp_path / "logs" and path.name.startswith("hang_")
    lines = path.read_text().splitlines()
    assert lines[0] == "rank 0: no progress for 300 s"
    assert lines[2].startswith("rank 1 (pid 1001 on node-2): no sign of life")
    assert lines[2].endswith("after step 5, in phase 'forward and backward' for 300 s")
    stacks = [line for line in lines if line.startswith("stack of rank")]
    assert [line.split()[3] for line in stacks] == ["1", "0"]
    assert f"  {READING[-1]}" in lines
