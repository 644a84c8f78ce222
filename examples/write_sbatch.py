"""Writes the train.sbatch of every example that has a slurm.yaml, after a change of either.

    python examples/write_sbatch.py

The scripts have paths below the folder that they are submitted in, the root of the checkout.
`tools/launch.py sbatch` writes the same for a run of your own.
"""

from pathlib import Path

import yaml

from megatron_biollm.config import load_config
from megatron_biollm.launch.slurm import Program, batch_script
from megatron_biollm.launch.slurm_config import JobConfig
from megatron_biollm.recipes.finetune_config import FinetuneConfig
from megatron_biollm.recipes.run_config import RunConfig

ROOT = Path(__file__).parents[1]
BASES = {"continue_70b": ["examples/pretrain_70b/run.yaml"]}


def examples() -> list[Path]:
    """Folders with a job."""
    return sorted(path.parent for path in (ROOT / "examples").rglob("slurm.yaml"))


def name(folder: Path) -> str:
    """Of an example: its folder below `examples`."""
    return folder.relative_to(ROOT / "examples").as_posix()


def is_finetuning(folder: Path) -> bool:
    """Whether the example's run goes to tools/finetune.py."""
    return "finetune" in yaml.safe_load((folder / "run.yaml").read_text(encoding="utf-8"))


def configs(folder: Path) -> list[str]:
    """YAML files of an example's run, relative to the root, later ones over earlier ones."""
    return [*BASES.get(name(folder), []), f"examples/{name(folder)}/run.yaml"]


def run_of(folder: Path) -> RunConfig:
    """The configuration of an example's run."""
    kind = FinetuneConfig if is_finetuning(folder) else RunConfig
    return load_config(kind, [ROOT / file for file in configs(folder)])


def script(folder: Path) -> str:
    """The text of an example's job; the corpus's own YAML comes last."""
    run, slurm = run_of(folder), load_config(JobConfig, folder / "slurm.yaml").slurm
    tool, files = "tools/finetune.py", configs(folder)
    if not is_finetuning(folder):
        tool, files = "tools/pretrain.py", [*files, "corpus/blend.yaml"]
    given = [word for file in files for word in ("--config", file)]
    program = Program((tool, *given), run.run_dir, run.training.train_iters, "tools/launch.py")
    return batch_script(slurm, program)


if __name__ == "__main__":
    for folder in examples():
        (folder / "train.sbatch").write_text(script(folder), encoding="utf-8")
