"""What is read, where it runs, and how much of each source is wanted."""

import os
from dataclasses import dataclass
from typing import Optional

from megatron_biollm.config import UserError, option, section

EXECUTORS = ("local", "slurm", "ray")


@dataclass
class ExecutorConfig:
    """Where the stages run: on this machine, as SLURM job arrays, or on a Ray cluster."""

    executor: str = option("local", "local, slurm or ray")
    workers: Optional[int] = option(None, "tasks at a time; none: one per CPU, or SLURM's limits")
    partition: Optional[str] = option(None, "SLURM partition, needed with slurm")
    time: str = option("24:00:00", "SLURM time limit of one task")
    qos: Optional[str] = option(None, "SLURM quality of service")
    cpus_per_task: int = option(1, "CPUs of one task (slurm, ray)")
    mem_per_cpu_gb: int = option(4, "memory per CPU in GB (slurm, ray)")
    max_array_size: int = option(1001, "the cluster's limit on tasks in one job array")
    env_command: Optional[str] = option(None, "shell line before each task (activate an env)")
    sbatch_args: dict[str, str] = option({}, "further sbatch options, for example account: lab")

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise UserError(
                f"executor.executor is {self.executor!r}; give one of {', '.join(EXECUTORS)}"
            )
        if self.workers is not None and self.workers < 1:
            raise UserError(f"executor.workers is {self.workers}; give 1 or more, or leave it out")
        if self.executor == "slurm" and not self.partition:
            raise UserError("executor.executor is slurm without executor.partition; name one")

    def worker_count(self) -> int:
        """Tasks that run at a time on this machine."""
        return self.workers or os.cpu_count() or 1


@dataclass
class SourceConfig:
    """One of the five sources, or other text."""

    paths: list[str] = option([], "files and folders of this source, where content cannot tell it")
    epochs: float = option(1.0, "how often a training run should see its tokens (upsampling)")
    token_budget: Optional[float] = option(None, "at most so many tokens, repetitions counted in")

    def __post_init__(self) -> None:
        if self.epochs < 0 or (self.token_budget is not None and self.token_budget <= 0):
            raise UserError(
                f"epochs is {self.epochs} and token_budget {self.token_budget}; epochs are 0 or "
                "more (0 leaves the source out), and a budget is above 0"
            )


@dataclass
class SourcesConfig:
    """The sources by name."""

    pubmed: SourceConfig = section(SourceConfig, "PubMed titles and abstracts")
    pmc: SourceConfig = section(SourceConfig, "PMC open-access articles")
    clinical_trials: SourceConfig = section(SourceConfig, "ClinicalTrials.gov studies")
    clinical_notes: SourceConfig = section(SourceConfig, "clinical notes, always de-identified")
    patents: SourceConfig = section(SourceConfig, "USPTO grants and applications")
    text: SourceConfig = section(SourceConfig, "plain text and JSONL of any other origin")

    def by_name(self) -> dict[str, SourceConfig]:
        return dict(vars(self))
