"""Files appear whole or not at all, whoever is killed on the way."""

import os
import signal
import subprocess
import sys

import pytest

from megatron_biollm.atomic import remove_leftovers, whole_file, write_json

KILLED = """
import os, signal, sys
from megatron_biollm.atomic import whole_file
with whole_file(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_a_writer_of(path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)])
    assert done.returncode == -signal.SIGKILL


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "a.bin"
    with whole_file(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]


def test_after_an_error_the_older_file_stays_and_nothing_else(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", object())
    assert (tmp_path / "a.json").read_text() == "1\n"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_what_a_killed_writer_left_goes_with_the_next_one(tmp_path):
    path = tmp_path / "[odd] name.json"
    kill_a_writer_of(path)
    assert len(list(tmp_path.iterdir())) == 1
    write_json(path, {"a": 1})
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_so_does_what_one_left_whose_end_nobody_asked_for(tmp_path):
    path = tmp_path / "a.json"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)]) as killed:
        # Waits for the end and leaves the process as it is: a zombie.
        os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
        write_json(path, {"a": 1})
        assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_a_living_writer_has_open_stays(tmp_path):
    path = tmp_path / "a.json"
    with whole_file(path) as first:
        first.write(b"first")
        write_json(path, "second")
        assert path.read_text() == '"second"\n'
    assert path.read_bytes() == b"first"


def test_leftovers_of_one_file_are_those_of_no_other(tmp_path):
    for name in ("a.json", "b.json"):
        kill_a_writer_of(tmp_path / name)
    remove_leftovers(tmp_path / "a.json")
    assert [p.name.startswith(".b.json") for p in tmp_path.iterdir()] == [True]
