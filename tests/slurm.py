"""A real SLURM cluster of a few nodes on this machine, for tests; nothing outside its folder.

Needs root and Debian's packages slurm-wlm and munge.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "squeue")

# cred_expire is also how long a requeued job waits (120 s by default).
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
MinJobAge=300
SchedulerParameters=bf_interval=1,sched_min_interval=0
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldPidFile={folder}/slurmctld.pid
PartitionName=main Nodes={nodes} Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=8000\n"


def missing() -> str | None:
    """Why no cluster can be started here; None if one can."""
    if os.geteuid() != 0:
        return "a SLURM cluster needs root"
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    return f"{', '.join(absent)} not installed (Debian: slurm-wlm munge)" if absent else None


class Cluster:
    """Started by `with`; `environment` is what programs need in order to find it."""

    def __init__(self, folder: Path, nodes: int = 2):
        self.folder = folder
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}

    def __enter__(self) -> "Cluster":
        folder, host = self.folder, socket.gethostname()
        (folder / "state").mkdir(parents=True)
        ports = _free_ports(1 + len(self.nodes))
        config = CONFIG.format(host=host, folder=folder, ports=ports, nodes=",".join(self.nodes))
        for name, port in zip(self.nodes, ports[1:], strict=True):
            config += NODE.format(name=name, host=host, port=port)
        (folder / "slurm.conf").write_text(config)
        self.run("mungekey", "--create", f"--keyfile={folder}/munge.key")
        # munge refuses keys and sockets below folders that others may write to.
        self.run(
            "munged", "--force", f"--key-file={folder}/munge.key",
            f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid",
            f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed",
        )  # fmt: skip
        self.run("slurmctld")
        for node in self.nodes:
            self.start_node(node)
        self._wait_for_nodes()
        return self

    def __exit__(self, *_: object) -> None:
        self.run("scancel", "--user=root", check=False)
        for name in (*(f"slurmd-{node}" for node in self.nodes), "slurmctld", "munged"):
            pid = self.folder / f"{name}.pid"
            if pid.exists():
                subprocess.run(["kill", "-9", pid.read_text().strip()], check=False)

    def start_node(self, node: str) -> None:
        """Starts a node's daemon."""
        self.run("slurmd", "-N", node)

    def kill_node(self, node: str) -> None:
        """Kills a node's daemon and all that its jobs run there, as a power cut does."""
        os.kill(int((self.folder / f"slurmd-{node}.pid").read_text()), signal.SIGKILL)
        jobs = list(self._jobs_on(node))
        # The daemons of the steps first: they would still tell SLURM that their programs died.
        for process in [p for job in jobs if (p := _step_daemon(job))] + jobs:
            with contextlib.suppress(psutil.Error):
                process.kill()

    def _jobs_on(self, node: str) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if self._is_job_of(node, process.environ()):
                    yield process

    def _is_job_of(self, node: str, environment: dict[str, str]) -> bool:
        """Other clusters of this machine have nodes of the same name."""
        own = environment.get("SLURM_CONF") == self.environment["SLURM_CONF"]
        return own and environment.get("SLURMD_NODENAME") == node

    def wait_for(self, condition: Callable[[], object], seconds: float = 120.0) -> None:
        """Waits until `condition()` holds.

        Raises:
            TimeoutError: with what the queue shows by then.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(self.run("scontrol", "--oneliner", "show", "job", check=False))
            time.sleep(0.2)

    def run(self, *command: str, check: bool = True) -> str:
        """The output of a command that finds the cluster."""
        done = subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
        return done.stdout

    def _wait_for_nodes(self) -> None:
        for _ in range(60):
            states = self.run("sinfo", "-N", "-h", "-o", "%t", check=False).split()
            if states == ["idle"] * len(self.nodes):
                return
            time.sleep(0.5)
        raise RuntimeError(f"the nodes do not come up: {states}; logs in {self.folder}")


def _step_daemon(process: psutil.Process) -> psutil.Process | None:
    with contextlib.suppress(psutil.Error):
        return next((p for p in process.parents() if p.name().startswith("slurmstepd")), None)
    return None


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin"
