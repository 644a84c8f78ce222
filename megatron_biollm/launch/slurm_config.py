"""What a SLURM job of a run needs to know, and the rules for it."""

import re
from dataclasses import dataclass
from typing import Optional

from megatron_biollm.config import UserError, option, section

# sbatch takes a signal time of 16 bits, and sends the signal up to 60 s early.
LONGEST_LEAD_S, LEAD_RESOLUTION_S = 65535, 60
TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
SIGNAL_MARGIN_S = 60


@dataclass
class SlurmConfig:
    """Where and how long a run's jobs run, and what happens when they end.

    Raises:
        UserError: values that SLURM or the script could not work with.
    """

    nodes: int = option(1, "nodes of the job")
    gpus_per_node: int = option(8, "GPUs of a node, one process each; 0 for nodes without")
    processes_per_node: Optional[int] = option(
        None, "processes on a node without GPUs (with GPUs: one each)"
    )
    gpu_option: str = option("gpus-per-node", "how this site asks for GPUs: gpus-per-node or gres")
    gpu_type: Optional[str] = option(None, "kind of GPU, where a site has several: h100")
    cpus_per_node: Optional[int] = option(None, "cores of a node to ask for; none takes all")
    mem: str = option("0", "memory of a node, as SLURM takes it; 0 is all of it")
    time: str = option("24:00:00", "limit of one job: H:M:S, D-H:M:S, or seconds")
    signal_seconds: int = option(
        600, "ask for save and stop so long before the limit: one step and one checkpoint, twice"
    )
    job_name: Optional[str] = option(None, "none makes one of the run folder; one run, one name")
    partition: Optional[str] = option(None, "none takes the site's default")
    account: Optional[str] = option(None, "to charge")
    qos: Optional[str] = option(None, "quality of service")
    constraint: Optional[str] = option(None, "features that a node must have")
    reservation: Optional[str] = option(None, "to run in")
    exclude: list[str] = option([], "nodes never to use, besides those found bad")
    exclusive: bool = option(True, "share no node with other jobs")
    sbatch_options: list[str] = option([], "further lines for sbatch: '--switches=1'")
    environment: list[str] = option(
        [], "shell lines before anything else: 'module load cuda', 'source venv/bin/activate'"
    )
    srun_options: list[str] = option([], "further options of srun: '--container-image=...' (pyxis)")
    container: Optional[str] = option(None, "command before python: 'apptainer exec --nv image'")
    python: str = option("python", "interpreter, as seen after the lines of environment")
    socket_ifname: Optional[str] = option(
        None, "network interface of NCCL's and gloo's connections: ib0, hsn0"
    )
    preflight: Optional[str] = option(
        None, "command on every node before training; a node where it fails is bad"
    )
    requeue: bool = option(True, "the job requeues itself; false for sites that forbid it")
    max_starts: int = option(3, "starts without a newer checkpoint, then the run is stopped")
    max_restarts: int = option(2, "further attempts in one allocation after a failure")
    backoff_seconds: int = option(60, "wait after a fruitless start; doubles with each")
    max_excluded: int = option(2, "bad nodes to exclude at most")

    def __post_init__(self) -> None:
        self._check_counts()
        self._check_processes()
        self._check_time()
        self._check_lines()

    @property
    def ranks_per_node(self) -> int:
        """Processes that torchrun starts on each node."""
        return self.gpus_per_node or self.processes_per_node or 1

    @property
    def time_seconds(self) -> int:
        """Limit of one job."""
        return parse_time(self.time)

    @property
    def time_limit(self) -> str:
        """As sbatch takes it: H:M:S."""
        minutes, seconds = divmod(self.time_seconds, 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"

    @property
    def grace_seconds(self) -> int:
        """After the warning, time to save and stop before what is left is ended."""
        return self.signal_seconds - min(SIGNAL_MARGIN_S, self.signal_seconds // 4)

    def check_device(self, device: str) -> None:
        """Checks that the nodes have what the run computes on.

        Raises:
            UserError: a run on GPUs without GPUs, or the other way round.
        """
        if device == "cuda" and not self.gpus_per_node:
            raise UserError(
                "training.device=cuda needs GPUs, but slurm.gpus_per_node=0; ask for GPUs, or set "
                "training.device=cpu"
            )
        if device == "cpu" and self.gpus_per_node:
            raise UserError(
                f"training.device=cpu leaves slurm.gpus_per_node={self.gpus_per_node} GPUs idle; "
                f"set slurm.gpus_per_node=0 slurm.processes_per_node=..., or training.device=cuda"
            )

    def _check_counts(self) -> None:
        least = {"nodes": 1, "gpus_per_node": 0, "signal_seconds": 10, "max_starts": 1}
        least |= {"max_restarts": 0, "backoff_seconds": 0, "max_excluded": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise UserError(
                    f"slurm.{name}={getattr(self, name)} must be at least {smallest}; raise it"
                )
        if self.cpus_per_node is not None and self.cpus_per_node < 1:
            raise UserError(
                f"slurm.cpus_per_node={self.cpus_per_node} must be at least 1; unset it for all"
            )
        if not self.exclusive and self.cpus_per_node is None:
            raise UserError(
                "slurm.exclusive=false shares nodes, and slurm.cpus_per_node says how many cores "
                "are the run's; set it"
            )

    def _check_processes(self) -> None:
        if self.gpu_option not in ("gpus-per-node", "gres"):
            raise UserError(
                f"slurm.gpu_option={self.gpu_option} is unknown; choose gpus-per-node or gres"
            )
        given = self.processes_per_node
        if given is not None and given < 1:
            raise UserError(f"slurm.processes_per_node={given} must be at least 1; raise it")
        if self.gpus_per_node and given not in (None, self.gpus_per_node):
            raise UserError(
                f"slurm.processes_per_node={given}, but each of slurm.gpus_per_node="
                f"{self.gpus_per_node} GPUs takes one process; unset it, or set gpus_per_node=0 "
                f"for nodes without GPUs"
            )

    def _check_time(self) -> None:
        if self.signal_seconds > LONGEST_LEAD_S:
            raise UserError(
                f"slurm.signal_seconds={self.signal_seconds} is more than the {LONGEST_LEAD_S} "
                f"that sbatch takes; lower it"
            )
        if self.signal_seconds + LEAD_RESOLUTION_S > self.time_seconds:
            raise UserError(
                f"slurm.time={self.time} ({self.time_seconds} s) leaves no time to train before "
                f"the warning, which comes slurm.signal_seconds={self.signal_seconds} s before it "
                f"and up to {LEAD_RESOLUTION_S} s early; lengthen time or lower signal_seconds"
            )

    def _check_lines(self) -> None:
        texts = [self.job_name, self.partition, self.account, self.qos, self.constraint, self.mem]
        texts += [self.reservation, self.gpu_type, *self.exclude, *self.sbatch_options]
        for text in texts:
            if text is not None and (not text.strip() or re.search(r"[\n\r]", text)):
                raise UserError(
                    f"slurm: {text!r} cannot stand in an #SBATCH line, which takes one non-empty "
                    f"line; correct it, or unset it"
                )
        for text in self.sbatch_options:
            if not text.startswith("-"):
                raise UserError(
                    f"slurm.sbatch_options={text!r} is no option of sbatch; write it as in an "
                    f"#SBATCH line, for example --switches=1"
                )


@dataclass
class JobConfig:
    """A file with the section `slurm`, which several runs of a site may share."""

    slurm: SlurmConfig = section(SlurmConfig, "nodes, time and rules of the run's jobs")


def parse_time(text: str) -> int:
    """Seconds of a time limit: M:S, H:M:S, D-H, D-H:M, D-H:M:S, or a number of seconds.

    A bare number is no number of minutes, as it is for SLURM: YAML reads an unquoted 12:00:00 as
    43200.

    Raises:
        UserError: another form, or no time at all.
    """
    match = TIME.fullmatch(text.strip())
    if match is None:
        raise UserError(f"slurm.time={text} is no time limit; write 12:00:00 or 2-00:00:00")
    days, *parts = match.groups()
    numbers = [int(part) for part in parts if part is not None]
    if days is not None:
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        hours, (minutes, seconds) = 0, (0, *numbers)[-2:]
    total = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
    if total == 0:
        raise UserError(f"slurm.time={text} is no time at all; give the limit of one job")
    return total
