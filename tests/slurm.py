"""A real SLURM cluster of two nodes on this machine, for tests; nothing outside its folder.

Needs root and Debian's packages slurm-wlm and munge.
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "squeue")

CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
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
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=8000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=8000
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why no cluster can be started here; None if one can."""
    if os.geteuid() != 0:
        return "a SLURM cluster needs root"
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    return f"{', '.join(absent)} not installed (Debian: slurm-wlm munge)" if absent else None


class Cluster:
    """Started by `with`; `environment` is what programs need in order to find it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}

    def __enter__(self) -> "Cluster":
        folder, host = self.folder, socket.gethostname()
        (folder / "state").mkdir(parents=True)
        config = CONFIG.format(host=host, folder=folder, ports=_free_ports(3))
        (folder / "slurm.conf").write_text(config)
        self._run("mungekey", "--create", f"--keyfile={folder}/munge.key")
        # munge refuses keys and sockets below folders that others may write to.
        self._run(
            "munged", "--force", f"--key-file={folder}/munge.key",
            f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid",
            f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed",
        )  # fmt: skip
        self._run("slurmctld")
        for node in ("n1", "n2"):
            self._run("slurmd", "-N", node)
        self._wait_for_nodes()
        return self

    def __exit__(self, *_: object) -> None:
        self._run("scancel", "--user=root", check=False)
        for name in ("slurmd-n1", "slurmd-n2", "slurmctld", "munged"):
            pid = self.folder / f"{name}.pid"
            if pid.exists():
                subprocess.run(["kill", "-9", pid.read_text().strip()], check=False)

    def _run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
        return done.stdout

    def _wait_for_nodes(self) -> None:
        for _ in range(60):
            states = self._run("sinfo", "-N", "-h", "-o", "%t", check=False).split()
            if states == ["idle", "idle"]:
                return
            time.sleep(0.5)
        raise RuntimeError(f"the nodes do not come up: {states}; logs in {self.folder}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin"
