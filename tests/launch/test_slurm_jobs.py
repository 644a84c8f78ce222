"""Jobs of a run on a real SLURM of three nodes on this machine; a stand-in does the training.

Where torchrun does not matter a light stand-in starts the ranks: torchrun's imports take seconds.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron_biollm.launch.history import read_history
from tests import slurm

TOOL = Path(__file__).parents[2] / "tools" / "launch.py"
STAND_IN = Path(__file__).with_name("stand_in.py")
LIGHT = Path(__file__).with_name("light_python.sh")
TORCHRUN = f"slurm.python={sys.executable}"

pytestmark = pytest.mark.skipif(slurm.missing() is not None, reason=str(slurm.missing()))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm.Cluster(tmp_path_factory.mktemp("slurm"), nodes=3) as cluster:
        yield cluster


class Job:
    """A run in `run_dir` that is submitted to the cluster."""

    def __init__(self, cluster, run_dir, *options, steps=5):
        self.cluster, self.run_dir = cluster, run_dir
        run_dir.mkdir(exist_ok=True)
        self.options = [
            f"run_dir={run_dir}", f"training.train_iters={steps}", "training.device=cpu",
            "model.preset=tiny", "data.data_path=[none]", "optimizer.lr_warmup_iters=1",
            "slurm.nodes=2", "slurm.gpus_per_node=0", "slurm.processes_per_node=1",
            "slurm.backoff_seconds=1", "slurm.max_restarts=0", f"slurm.python={LIGHT}",
            "slurm.exclusive=false", "slurm.cpus_per_node=1", "slurm.signal_seconds=60",
            *options,
        ]  # fmt: skip

    def submit(self, *flags):
        empty = self.run_dir / "empty.yaml"
        empty.write_text("{}")
        command = [sys.executable, str(TOOL), "sbatch", "--config", str(empty), "--program",
                   str(STAND_IN), "--submit", *flags, *self.options]  # fmt: skip
        done = subprocess.run(
            command,
            env=os.environ | self.cluster.environment | {"REAL_PYTHON": sys.executable},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        self.ids = done.stdout.split()
        return self

    def wait(self, seconds=90):
        self.cluster.wait_for(lambda: self.states() <= {"COMPLETED", "FAILED"}, seconds)
        return self

    def states(self):
        shown = [
            self.cluster.run("squeue", "-h", "-t", "all", "-j", i, "-o", "%T") for i in self.ids
        ]
        return set("".join(shown).split())

    def log(self):
        return "".join((self.run_dir / f"logs/slurm/job_{i}.log").read_text() for i in self.ids)

    def events(self, kind):
        return read_history(self.run_dir).of_kind(kind)

    def nodes_of_rank(self, rank=0):
        path = self.run_dir / f"started_{rank}"
        return path.read_text().split() if path.exists() else []


def test_the_warning_reaches_every_rank_and_the_job_goes_on_after_a_requeue(cluster, tmp_path):
    (tmp_path / "wait").touch()
    (tmp_path / "deaf_to_files").touch()  # the signal itself must arrive
    job = Job(cluster, tmp_path, "slurm.processes_per_node=2", TORCHRUN).submit()
    cluster.wait_for(lambda: all(job.nodes_of_rank(rank) for rank in range(4)))
    cluster.run("scancel", "--signal=USR1", "--batch", *job.ids)
    cluster.wait_for(lambda: job.events("end"))
    (tmp_path / "wait").unlink()
    job.wait()
    assert job.states() == {"COMPLETED"}, job.log()
    first = tmp_path / "logs" / "slurm" / f"{job.ids[0]}_0"
    said = "".join(path.read_text() for path in first.glob("node_*.log"))
    assert all(f"rank {rank} on" in said for rank in range(4)) and said.count("['SIGUSR1']") == 4
    assert [end["action"] for end in job.events("end")] == ["requeue", "stop"]
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "finished"
    assert not (tmp_path / "lock.json").exists() and not (tmp_path / "stop").exists()


def test_a_crash_loop_is_stopped_and_says_where_to_look(cluster, tmp_path):
    (tmp_path / "crash").touch()
    job = Job(cluster, tmp_path, "slurm.max_starts=2").submit().wait()
    assert job.states() == {"FAILED"}
    assert len(job.events("start")) == 2
    assert "no progress: 2 starts in a row" in job.log() and "node" in job.log()
    (tmp_path / "crash").unlink()
    job.submit().wait()  # a person has submitted it anew
    assert job.states() == {"COMPLETED"}, job.log()


def test_a_run_that_refuses_to_go_on_is_not_started_again(cluster, tmp_path):
    (tmp_path / "refuse").touch()
    job = Job(cluster, tmp_path).submit().wait()
    assert job.states() == {"FAILED"}
    assert len(job.events("start")) == 1 and "the run refused to go on: as it was told" in job.log()


def test_jobs_of_one_run_never_run_at_once(cluster, tmp_path):
    (tmp_path / "wait").touch()
    job = Job(cluster, tmp_path, "slurm.nodes=1").submit("--jobs", "2")
    cluster.wait_for(lambda: job.events("start"))
    assert cluster.run("squeue", "-h", "-o", "%r", "-j", job.ids[1]).strip() == "Dependency"
    # Another name, so that only the lock keeps it out.
    other = Job(cluster, tmp_path, "slurm.nodes=1", "slurm.job_name=other").submit().wait()
    assert other.states() == {"FAILED"}
    assert f"is being trained by job {job.ids[0]}" in other.log()
    (tmp_path / "wait").unlink()
    job.wait()
    assert len(job.events("start")) == 1 and "finished: step 5" in job.log()


def test_a_node_that_kills_its_ranks_is_left_out_at_the_requeue(cluster, tmp_path):
    (tmp_path / "die_on_n1").touch()
    job = Job(cluster, tmp_path, TORCHRUN).submit().wait()
    assert job.states() == {"COMPLETED"}, job.log()
    first, second = (start["nodes"] for start in job.events("start"))
    assert "n1" in first and second == ["n2", "n3"]
    assert list(read_history(tmp_path).blamed()) == ["n1"]


def test_a_node_that_somebody_names_is_left_out_before_the_start(cluster, tmp_path):
    (tmp_path / "bad_nodes.txt").write_text("n1 fans are loud\nn2 preflight\nn3 preflight\n")
    job = Job(cluster, tmp_path, "slurm.nodes=1", "slurm.max_excluded=2").submit().wait()
    assert job.states() == {"COMPLETED"}, job.log()
    # Never all of them: the two that were named last.
    assert job.nodes_of_rank() == ["n1"]


def test_a_failed_preflight_names_the_node(cluster, tmp_path):
    preflight = "slurm.preflight='test $SLURMD_NODENAME != n2'"
    job = Job(cluster, tmp_path, preflight, steps=60).submit().wait()
    assert job.states() == {"COMPLETED"}, job.log()
    assert (tmp_path / "bad_nodes.txt").read_text().startswith("n2 preflight failed")
    assert job.events("start")[-1]["nodes"] == ["n1", "n3"]


def test_a_killed_node_has_the_job_start_again(cluster, tmp_path):
    (tmp_path / "wait").touch()
    job = Job(cluster, tmp_path).submit()
    cluster.wait_for(lambda: job.nodes_of_rank(1))
    cluster.kill_node("n2")
    cluster.run("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=killed")
    (tmp_path / "wait").unlink()
    cluster.start_node("n2")
    # It may be back by itself already.
    cluster.run("scontrol", "update", "NodeName=n2", "State=RESUME", check=False)
    # SLURM holds jobs that lost a node back for two minutes. Some of it is needed: what the node
    # still says of the lost attempt would take it away from a new one.
    cluster.wait_for(lambda: "PENDING" in job.states())
    time.sleep(5)
    cluster.run("scontrol", "update", f"JobId={job.ids[0]}", "StartTime=now")
    job.wait()
    assert job.states() == {"COMPLETED"}, job.log()
    assert len(job.events("start")) == 2
