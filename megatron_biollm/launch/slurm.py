"""A run as one SLURM job that saves before its time limit and requeues itself until it is done.

The script is settings, made here, and `batch.sh`, which is the same for every run.
"""

import hashlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from megatron_biollm.launch.slurm_config import SlurmConfig

BODY = Path(__file__).with_name("batch.sh")
WIDTH = 96


@dataclass(frozen=True)
class Program:
    """What the job runs.

    Attributes:
        command: of one rank, after the interpreter: `tools/pretrain.py --config run.yaml`.
        run_dir: of the run; absolute, or below the folder that the job is submitted in.
        train_iters: that the run trains to.
        launcher: tools/launch.py.
        folder: that the script changes to; empty for the one that the job is submitted in.
    """

    command: tuple[str, ...]
    run_dir: str
    train_iters: int
    launcher: str
    folder: str = ""


def batch_script(config: SlurmConfig, program: Program) -> str:
    """The text of the job, for sbatch.

    One torchrun per node under srun. SLURM warns the batch shell with SIGUSR1, which has every
    trainer save and stop; then the job requeues itself. `tools/launch.py guard` decides.
    """
    header = [f"#SBATCH {line}" for line in sbatch_lines(config, program)]
    parts = [
        "#!/bin/bash",
        "# Written by tools/launch.py sbatch. SLURM keeps its own copy from the submission on.",
        *header,
        "",
        *_settings(config, program),
        "",
        BODY.read_text(encoding="utf-8"),
    ]
    return "\n".join(parts)


def sbatch_lines(config: SlurmConfig, program: Program) -> Iterator[str]:
    """Options for sbatch, in the order of the script's head."""
    yield f"--job-name={config.job_name or job_name(program.run_dir)}"
    yield "--dependency=singleton"  # jobs of this name run one after another
    yield f"--nodes={config.nodes}"
    yield "--ntasks-per-node=1"  # torchrun, which starts the ranks
    if config.cpus_per_node is not None:
        yield f"--cpus-per-task={config.cpus_per_node}"
    if config.gpus_per_node:
        kind = f"{config.gpu_type}:" if config.gpu_type else ""
        prefix = "gpus-per-node=" if config.gpu_option == "gpus-per-node" else "gres=gpu:"
        yield f"--{prefix}{kind}{config.gpus_per_node}"
    if config.exclusive:
        yield "--exclusive"
    yield f"--mem={config.mem}"
    yield f"--time={config.time_limit}"
    yield f"--signal=B:USR1@{config.signal_seconds}"
    yield "--requeue" if config.requeue else "--no-requeue"
    yield "--open-mode=append"  # a requeued job goes on in its log
    logs = Path(program.run_dir) / "logs" / "slurm"
    yield f"--output={logs}/job_%j.log"
    for name in ("partition", "account", "qos", "constraint", "reservation"):
        if (value := getattr(config, name)) is not None:
            yield f"--{name}={value}"
    if config.exclude:
        yield f"--exclude={','.join(config.exclude)}"
    yield from config.sbatch_options


def job_name(run_dir: str) -> str:
    """A name that no other run's jobs have: singleton goes by name and user."""
    path = Path(run_dir).absolute()
    return f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:6]}"


def _settings(config: SlurmConfig, program: Program) -> Iterator[str]:
    if program.folder:
        yield f"cd {shlex.quote(program.folder)} || exit 1"
    yield from config.environment
    yield "\n# What is run."
    here = "" if Path(program.run_dir).is_absolute() else '"$PWD"/'
    yield f"run_dir={here}{shlex.quote(program.run_dir)}"
    yield _array("torchrun", _torchrun(config))
    yield _array("program", program.command)
    # With a container for srun, python is inside: the guard runs there too, in a step of its own.
    step = ["srun", "--nodes=1", "--ntasks=1", "--overlap", *config.srun_options]
    outside = step if any(o.startswith("--container") for o in config.srun_options) else []
    guard = [*outside, *_python(config), program.launcher, "guard"]
    yield _array("guard", guard)
    cores = config.cpus_per_node or '"$SLURM_CPUS_ON_NODE"'
    srun = shlex.join(config.srun_options)
    # srun takes no cores from sbatch since 22.05, and would bind torchrun and all its ranks to one.
    yield f"srun_options=(--kill-on-bad-exit=1 --cpu-bind=none --cpus-per-task={cores} {srun})"
    yield f"preflight={shlex.quote(config.preflight or '')}"
    yield "\n# What the guard allows, and times in seconds."
    yield _array("limits", _limits(config, program))
    yield f"time_limit={config.time_seconds} signal_seconds={config.signal_seconds}"
    yield f"grace={config.grace_seconds} may_requeue={int(config.requeue)}"
    yield f"never={shlex.quote(','.join(config.exclude))}"
    yield ""
    yield from _environment(config)


def _python(config: SlurmConfig) -> list[str]:
    return [*shlex.split(config.container or ""), config.python]


def _torchrun(config: SlurmConfig) -> list[str]:
    return [
        *_python(config),
        "-m",
        "torch.distributed.run",
        f"--nnodes={config.nodes}",
        f"--nproc-per-node={config.ranks_per_node}",
        # Ranks that have died are started again by the job, which looks at progress and nodes.
        "--max-restarts=0",
    ]


def _limits(config: SlurmConfig, program: Program) -> list[str]:
    names = ("max_starts", "max_restarts", "backoff_seconds", "max_excluded")
    flags = [f"--{name.replace('_', '-')}={getattr(config, name)}" for name in names]
    return [f"--train-iters={program.train_iters}", *flags]


def _environment(config: SlurmConfig) -> Iterator[str]:
    yield "# torchrun would set one thread a rank itself, and warn."
    yield 'export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"'
    if config.socket_ifname:
        yield "# Rendezvous, gloo and NCCL's first contact go over this interface; the first one"
        yield "# that is found may lead nowhere."
        name = shlex.quote(config.socket_ifname)
        yield f"export NCCL_SOCKET_IFNAME={name} GLOO_SOCKET_IFNAME={name}"
    if not config.gpus_per_node:
        return
    yield "# NCCL says what went wrong, and only that."
    yield 'export NCCL_DEBUG="${NCCL_DEBUG:-WARN}"'
    yield "# When a collective times out, each rank writes which ones it was in (flight recorder)."
    yield "export TORCH_NCCL_TRACE_BUFFER_SIZE=2000 TORCH_NCCL_DUMP_ON_TIMEOUT=1"
    yield 'export TORCH_NCCL_DEBUG_INFO_TEMP_FILE="$run_dir/logs/nccl_trace_rank_"'
    yield "# Sizes that change from step to step leave fewer holes in the GPU's memory."
    yield 'export PYTORCH_CUDA_ALLOC_CONF="${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}"'


def _array(name: str, words: tuple[str, ...] | list[str]) -> str:
    """A bash array, broken into lines that can be read."""
    lines, line = [], f"{name}=("
    for word in map(shlex.quote, words):
        if len(line) + len(word) >= WIDTH:
            lines.append(line)
            line = "  "
        line += word if line.endswith(("(", "  ")) else f" {word}"
    return "\n".join([*lines, f"{line})"])
