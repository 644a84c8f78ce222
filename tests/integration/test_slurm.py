"""A pretraining on a real SLURM: warned by SLURM before its limit it saves, requeues and finishes.

Two nodes of two processes each, tensor-parallel in a node and pipeline-parallel between them.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_biollm.launch.history import read_history
from megatron_biollm.launch.status import read_status
from tests import slurm
from tests.integration.recipe import ROOT, layout, pretrain_here, rows, trained, write_inputs

WAIT_AT, TOOL = Path(__file__).with_name("wait_at.py"), ROOT / "tools" / "launch.py"
STEP, STEPS = 5, 9
SLURM = [
    "slurm.nodes=2", "slurm.gpus_per_node=0", "slurm.processes_per_node=2",
    "slurm.cpus_per_node=1", "slurm.exclusive=false", f"slurm.python={sys.executable}",
    # Longer than the minute in which the limit is set below, so that the warning follows at once.
    "slurm.signal_seconds=100",
]  # fmt: skip

pytestmark = pytest.mark.skipif(slurm.missing() is not None, reason=str(slurm.missing()))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm.Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


def submit(cluster, overrides):
    """Submits the run and gives the job's id."""
    (cluster.folder / "empty.yaml").write_text("{}")
    command = [sys.executable, str(TOOL), "sbatch", "--submit"]
    command += ["--config", str(cluster.folder / "empty.yaml")]
    environment = {"WAIT_AT": str(STEP), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--program", str(WAIT_AT), *overrides, *SLURM],
        env=os.environ | cluster.environment | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def has_reached(run_dir, step):
    return (run_dir / "metrics.jsonl").exists() and step in rows(run_dir)


def shorten_limit(cluster, job):
    """Sets the job's limit to the next full minute but one, which is as fine as SLURM has it."""
    elapsed = cluster.run("squeue", "-h", "-j", job, "-o", "%M").strip().split(":")
    minutes = int(elapsed[-2]) + 2
    cluster.run("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")


def test_loss_lines_equal_those_of_the_uninterrupted_run_bit_for_bit(cluster, world, tmp_path):
    alone, run_dir = tmp_path / "alone", tmp_path / "run"
    options = [*write_inputs(tmp_path), *layout(tp=2, pp=2, sp="true")]
    options += [f"training.train_iters={STEPS}", "checkpoint.save_interval=0"]
    job = submit(cluster, [*options, f"run_dir={run_dir}"])
    world.run(4, pretrain_here, [*options, f"run_dir={alone}"], joined=False)
    cluster.wait_for(lambda: has_reached(run_dir, STEP), 240)
    shorten_limit(cluster, job)
    log = run_dir / "logs" / "slurm" / f"job_{job}.log"
    cluster.wait_for(lambda: "over: requeue" in log.read_text(), 240)
    assert "time is up" in log.read_text()
    cluster.wait_for(lambda: cluster.run("squeue", "-h", "-o", "%T").strip() == "PENDING")
    cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    cluster.wait_for(lambda: "over: stop" in log.read_text(), 240)
    actions = [end["action"] for end in read_history(run_dir).of_kind("end")]
    assert actions == ["requeue", "stop"], log.read_text()
    assert read_history(run_dir).last_start["committed_step"] == STEP
    assert read_status(run_dir).state == "finished"
    assert trained(run_dir) == trained(alone) and len(trained(alone)) == STEPS
    for attempt in (f"{job}_0", f"{job}_1"):
        logs = sorted(path.name for path in (log.parent / attempt).glob("node_*.log"))
        assert logs == ["node_n1.log", "node_n2.log"]
