"""Writes the train.sbatch of every example that has a slurm.yaml, after a change of either.

    python examples/write_sbatch.py

The scripts have paths below the folder that they are submitted in, the root of the checkout.
`tools/launch.py sbatch` writes the same for a run of your own.
"""

from pathlib import Path

from megatron_biollm.config import load_config
from megatron_biollm.launch.slurm import Program, batch_script
from megatron_biollm.launch.slurm_config import JobConfig
from megatron_biollm.recipes.run_config import load_run_config

ROOT = Path(__file__).parents[1]
BASES = {"continue_70b": ["examples/pretrain_70b/run.yaml"]}


def examples() -> list[Path]:
    """Folders with a job."""
    return sorted(path.parent for path in (ROOT / "examples").glob("*/slurm.yaml"))


def configs(folder: Path) -> list[str]:
    """YAML files of an example's run, relative to the root, later ones over earlier ones."""
    return [*BASES.get(folder.name, []), f"examples/{folder.name}/run.yaml"]


def script(folder: Path) -> str:
    """The text of an example's job; the corpus's own YAML comes last."""
    files = configs(folder)
    run = load_run_config([ROOT / file for file in files])
    slurm = load_config(JobConfig, folder / "slurm.yaml").slurm
    given = [word for file in [*files, "corpus/blend.yaml"] for word in ("--config", file)]
    command = ("tools/pretrain.py", *given)
    program = Program(command, run.run_dir, run.training.train_iters, "tools/launch.py")
    return batch_script(slurm, program)


if __name__ == "__main__":
    for folder in examples():
        (folder / "train.sbatch").write_text(script(folder), encoding="utf-8")
