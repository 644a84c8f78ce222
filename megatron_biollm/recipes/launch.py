"""A run's YAML and a site's YAML become a job, or commands for hosts without SLURM."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from megatron_biollm.atomic import whole_file
from megatron_biollm.config import UserError, dump_config, load_config
from megatron_biollm.launch import guard
from megatron_biollm.launch.attempt import Limits
from megatron_biollm.launch.slurm import Program, batch_script
from megatron_biollm.launch.slurm_config import JobConfig
from megatron_biollm.recipes.finetune_config import load_stages
from megatron_biollm.recipes.run_config import RunConfig, load_run_config


@dataclass(frozen=True)
class JobRequest:
    """What to make a job of.

    Attributes:
        configs: the run's YAML files.
        site: YAML files with a section `slurm`.
        overrides: `slurm.field=value` for the job, all others for the run.
        program: what trains, called with --config.
        launcher: tools/launch.py.
        output: of the script; None puts it into the run folder.
    """

    configs: list[str]
    site: list[str]
    overrides: list[str]
    program: Path
    launcher: Path
    output: Path | None = None


def write_job(request: JobRequest) -> tuple[Path, RunConfig]:
    """Checks run and job together, then writes the script and the YAML that it trains by.

    The YAML is a copy in `run_dir/launch`: jobs of the chain that start next week must not see
    what the user's own file holds by then.

    Returns:
        The script, and the run's configuration.

    Raises:
        UserError: a run that the nodes cannot hold, or options that SLURM could not work with.
    """
    own = [text for text in request.overrides if text.startswith("slurm.")]
    others = [text for text in request.overrides if text not in own]
    run = load_for(request.program, request.configs, others)
    slurm = load_config(JobConfig, request.site, own).slurm
    run.check_world(slurm.nodes * slurm.ranks_per_node)
    slurm.check_device(run.training.device)
    run.data.check_given()
    run_dir = run.run_path.absolute()
    folder = run_dir / "launch"
    program = Program(
        command=(str(request.program.absolute()), "--config", str(folder / "run.yaml")),
        run_dir=str(run_dir),
        train_iters=run.training.train_iters,
        launcher=str(request.launcher),
        folder=str(Path.cwd()),
    )
    script = request.output or folder / "job.sbatch"
    _write(folder / "run.yaml", dump_config(run))
    _write(script, batch_script(slurm, program))
    # SLURM makes no folder for the job's output, and a job without one fails silently.
    (run_dir / "logs" / "slurm").mkdir(parents=True, exist_ok=True)
    return script, run


def load_for(program: Path, configs: list[str], overrides: list[str]) -> RunConfig:
    """The configuration of what a job trains, as its program reads it.

    Raises:
        UserError: as the loaders, or a chain of stages, of which each is a job.
    """
    if program.stem != "finetune":
        return load_run_config(configs, overrides)
    stages = load_stages(configs, overrides)
    if len(stages) > 1:
        raise UserError(
            f"{configs[-1]} has {len(stages)} stages, and a job watches over one run; give each "
            f"stage a file and a job of its own, with checkpoint.load={stages[0].run_dir} in the "
            f"second, and submit them one after another"
        )
    return stages[0]


def submit(script: Path, run_dir: Path, jobs: int) -> list[str]:
    """Hands the script to SLURM; earlier failures of the run count no more.

    Returns:
        The ids of the jobs, which run one after another.

    Raises:
        UserError: no sbatch here, or it refuses.
    """
    if guard.outlook(run_dir, Limits()).action != "leave":  # else a job of the run has begun
        guard.clear(run_dir, "submitted anew")
    return [_sbatch(script) for _ in range(jobs)]


def _sbatch(script: Path) -> str:
    try:
        done = subprocess.run(["sbatch", "--parsable", script], capture_output=True, text=True)
    except FileNotFoundError as error:
        raise UserError(
            f"sbatch is not on this machine, so {script} is not submitted; submit it on a login "
            f"node of the cluster, or use tools/launch.py torchrun"
        ) from error
    if done.returncode:
        raise UserError(
            f"sbatch refused {script}: {done.stderr.strip()}; correct the slurm.* options it names"
        )
    # With several clusters it is id;cluster.
    return done.stdout.strip().split(";")[0]


def _write(path: Path, text: str) -> None:
    with whole_file(path) as file:
        file.write(text.encode())
