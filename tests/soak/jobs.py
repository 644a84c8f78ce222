"""A run as a job that starts itself again: on a SLURM of this machine, or under plain torchrun."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests import slurm
from tests.integration.recipe import ROOT

LAUNCH, PROGRAM = ROOT / "tools" / "launch.py", Path(__file__).with_name("program.py")
OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
ASK_SLURM_S = 1.0
# A job that lost a node is NODE_FAIL for a moment before SLURM has requeued it.
SURELY_OVER_S = 10.0
SLURM = [
    "slurm.nodes=2", "slurm.gpus_per_node=0", "slurm.processes_per_node=2",
    "slurm.cpus_per_node=1", "slurm.exclusive=false", f"slurm.python={sys.executable}",
    "slurm.signal_seconds=100", "slurm.backoff_seconds=1", "slurm.time=8:00:00",
]  # fmt: skip


def hasten(cluster: slurm.Cluster) -> None:
    """Has SLURM kill what does not end by itself after 5 s, and not after its usual 30."""
    with (cluster.folder / "slurm.conf").open("a") as config:
        config.write("KillWait=5\n")
    cluster.run("scontrol", "reconfigure")


class Job:
    """What both kinds have in common.

    Args:
        run_dir: of the run.
        overrides: of the run, without its folder.
        environment: for the program.
    """

    has_nodes = False

    def __init__(self, run_dir: Path, overrides: list[str], environment: dict[str, str]) -> None:
        self.run_dir, self.overrides = run_dir, [*overrides, f"run_dir={run_dir}"]
        run_dir.mkdir(parents=True, exist_ok=True)
        self.environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
        self.empty = run_dir.parent / "empty.yaml"
        self.empty.write_text("{}")

    def clear(self) -> None:
        """Says, as a person would, that what was wrong is mended."""
        command = [sys.executable, LAUNCH, "guard", "--run-dir", self.run_dir, "--clear"]
        subprocess.run(command, env=os.environ | self.environment, capture_output=True)


class SlurmJob(Job):
    """One sbatch of two nodes with two ranks each."""

    has_nodes = True

    def __init__(self, cluster: slurm.Cluster, *args: object) -> None:
        super().__init__(*args)
        self.cluster, self.id = cluster, ""
        self._asked, self._state, self._went_on = 0.0, "", 0.0

    def start(self) -> None:
        command = [sys.executable, str(LAUNCH), "sbatch", "--submit", "--config", str(self.empty)]
        done = subprocess.run(
            [*command, "--program", str(PROGRAM), *self.overrides, *SLURM],
            env=os.environ | self.cluster.environment | self.environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"sbatch: {done.stderr}")
        self.id, self._asked = done.stdout.split()[-1], 0.0
        self._went_on = time.monotonic()

    def state(self) -> str:
        """As squeue says it, at most every second."""
        if time.monotonic() - self._asked > ASK_SLURM_S:
            self._state = self.cluster.run(
                "squeue", "-h", "-t", "all", "-j", self.id, "-o", "%T", check=False
            ).strip()
            self._asked = time.monotonic()
        return self._state

    def is_over(self) -> bool:
        """Whether nothing will start it again."""
        state = self.state()
        if state not in OVER:
            self._went_on = time.monotonic()
        waited = time.monotonic() - self._went_on
        return state in OVER and (state != "NODE_FAIL" or waited > SURELY_OVER_S)

    def end(self) -> None:
        self.cluster.run("scancel", self.id, check=False)

    def lose_node(self, node: str) -> None:
        """The node goes down with all that runs on it, and SLURM notices."""
        self.cluster.kill_node(node)
        self.cluster.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")

    def mend_node(self, node: str) -> None:
        """It comes back; the job need not wait the two minutes for which SLURM holds it back."""
        self.cluster.start_node(node)
        self.cluster.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
        self.cluster.wait_for(lambda: self.state() == "PENDING" or self.is_over(), 300)
        if self.state() == "PENDING":
            self.cluster.run("scontrol", "update", f"JobId={self.id}", "StartTime=now", check=False)

    def kill_daemon(self, node: str) -> None:
        """slurmd alone; what it has started lives on."""
        pid = int((self.cluster.folder / f"slurmd-{node}.pid").read_text())
        os.kill(pid, signal.SIGKILL)

    def start_daemon(self, node: str) -> None:
        self.cluster.start_node(node)
        self.cluster.wait_for(lambda: self._answers(node), 300)

    def _answers(self, node: str) -> bool:
        shown = self.cluster.run("sinfo", "-h", "-N", "-n", node, "-o", "%t", check=False).split()
        return bool(shown) and shown[0] in ("idle", "mix", "alloc")


class TorchrunJob(Job):
    """tools/launch.py torchrun on this host; started again where it gives up after some tries."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        port = slurm._free_ports(1)[0]
        command = [sys.executable, str(LAUNCH), "torchrun", "--run", "--nproc-per-node=4"]
        command += [f"--master-port={port}", "--config", str(self.empty)]
        command += ["--program", str(PROGRAM), "--backoff-seconds=1", *self.overrides]
        with (self.run_dir.parent / "torchrun.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=os.environ | self.environment, stdout=log, stderr=log
            )

    def is_over(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def end(self) -> None:
        if self.process is None:
            return
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    process.kill()
        self.process.kill()
        self.process.wait()


def train_undisturbed(run_dir: Path, overrides: list[str], environment: dict[str, str]) -> None:
    """The twin of a run: the same options, one torchrun, nothing in its way.

    Raises:
        RuntimeError: it fails.
    """
    job = Job(run_dir, overrides, environment)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4"]
    with (run_dir / "torchrun.log").open("wb") as log:
        done = subprocess.run(
            [*command, str(PROGRAM), *job.overrides],
            env=os.environ | job.environment,
            stdout=log,
            stderr=log,
        )
    if done.returncode:
        raise RuntimeError(f"the twin failed:\n{(run_dir / 'torchrun.log').read_text()[-3000:]}")
