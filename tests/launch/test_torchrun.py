"""Two hosts without SLURM: two launchers on this machine, one torchrun each, over loopback."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.launch.history import read_history
from megatron_biollm.launch.status import read_status
from megatron_biollm.launch.torchrun import Hosts

ROOT = Path(__file__).parents[2]
STAND_IN = Path(__file__).with_name("stand_in.py")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class TwoHosts:
    """Launchers of one run; `launch.py torchrun --run` on each."""

    def __init__(self, run_dir, *options):
        (run_dir / "run.yaml").write_text(
            f"run_dir: {run_dir}\nmodel: {{preset: tiny}}\ndata: {{data_path: [none]}}\n"
            f"training: {{train_iters: 5}}\noptimizer: {{lr_warmup_iters: 1}}\n"
        )
        self.run_dir, port = run_dir, free_port()
        command = [sys.executable, str(ROOT / "tools" / "launch.py"), "torchrun", "--run"]
        command += ["--config", str(run_dir / "run.yaml"), "--program", str(STAND_IN)]
        command += ["--nnodes=2", f"--master-port={port}", *options]
        self.hosts = [
            subprocess.Popen(
                [*command, f"--node-rank={rank}"], stderr=subprocess.PIPE, text=True,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
            for rank in (0, 1)
        ]  # fmt: skip

    def wait_until(self, condition, seconds=120):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it does not come"
            time.sleep(0.1)

    def end(self):
        """Exit status and standard error of each host."""
        said = [host.communicate(timeout=180)[1] for host in self.hosts]
        return [host.returncode for host in self.hosts], said


def test_a_signal_to_one_host_stops_the_run_and_the_same_commands_go_on(tmp_path):
    (tmp_path / "wait").touch()
    run = TwoHosts(tmp_path)
    run.wait_until(lambda: all((tmp_path / f"started_{rank}").exists() for rank in (0, 1)))
    # Ranks agree among themselves in a real run; the stand-ins need to be told each.
    for host in run.hosts:
        host.send_signal(signal.SIGUSR1)
    statuses, said = run.end()
    assert statuses == [0, 0], said
    assert read_status(tmp_path).state == "stopped" and not (tmp_path / "lock.json").exists()
    (tmp_path / "wait").unlink()
    statuses, said = TwoHosts(tmp_path).end()
    assert statuses == [0, 0], said
    assert read_status(tmp_path).state == "finished"
    assert [end["action"] for end in read_history(tmp_path).of_kind("end")] == ["stop", "stop"]


def test_a_crash_loop_is_stopped_on_both_hosts(tmp_path):
    (tmp_path / "crash").touch()
    statuses, said = TwoHosts(tmp_path, "--max-starts=2", "--backoff-seconds=1").end()
    assert statuses == [1, 1]
    assert "no progress: 2 starts in a row" in said[0]
    assert len(read_history(tmp_path).of_kind("start")) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [({"node_rank": 2}, "must be from 0 to 1"), ({"master_port": 80}, "must be from 1024")],
)
def test_a_place_that_cannot_be_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        Hosts(2, 1, **options)
