"""Stages of the curation on datatrove's local, SLURM and Ray executors.

What datatrove 0.10 does to its users and must not do to ours:

* A local worker that is killed leaves its pool waiting for ever. Here its end is noticed, the
  other tasks go on, and the failed ones are named at the end (`corpus/local_executor.py`).
* A changed input or setting counts as "already done". Here a stage's folder bears the digest of
  everything its result depends on (`corpus/curation.py`).
* On SLURM, jobs wait for ever for one that failed, and a job is queued that merges statistics
  nobody reads. Here they are cancelled, respectively left out.
"""

from __future__ import annotations

import importlib.util
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datatrove.executor.ray import RayPipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from megatron_biollm.config import UserError
from megatron_biollm.corpus.config import ExecutorConfig
from megatron_biollm.corpus.local_executor import Recorded, WatchedLocalExecutor, read_failure

_POLL_S = 2.0


@dataclass
class Stage:
    """One pass over the shards.

    name: shown, and the job's name. tasks: ranks 0 to tasks - 1. steps: a datatrove pipeline.
    folder: takes the log of each task, its statistics and its completion mark.
    """

    name: str
    tasks: int
    steps: Sequence[PipelineStep]
    folder: Path

    def missing(self) -> list[int]:
        """The tasks that have not been completed."""
        done = self.folder / "completions"
        return [rank for rank in range(self.tasks) if not (done / f"{rank:05d}").exists()]


class StageFailed(UserError):
    """Tasks of a stage failed; the message names them, their reason and their logs."""


def run_stages(stages: Sequence[Stage], config: ExecutorConfig, wait_for_jobs: bool) -> bool:
    """Runs the stages one after another; what was completed before is not run again.

    Args:
        stages: in order; each needs all tasks of the one before it.
        config: where to run them.
        wait_for_jobs: with SLURM, return only when the last job has ended.

    Returns:
        Whether the stages are complete; False for SLURM jobs that were submitted only.

    Raises:
        StageFailed: a task failed. The tasks beside it were run to their end.
    """
    if config.executor == "slurm":
        _submit(stages, config, wait_for_jobs)
    else:
        for stage in stages:
            _run_here(stage, config)
    if config.executor == "slurm" and not wait_for_jobs:
        return False
    for stage in stages:
        _refuse_missing(stage)
    return True


class QuietSlurmExecutor(Recorded, SlurmPipelineExecutor):
    """Submits a job array and nothing else."""

    def launch_merge_stats(self) -> None:
        """No job for statistics: ours lie beside the shards."""


class RecordedRayExecutor(Recorded, RayPipelineExecutor):
    """Ray's own executor, with the reason of each failed task kept."""


def _run_here(stage: Stage, config: ExecutorConfig) -> None:
    if not stage.missing():
        return
    settings = {
        "pipeline": list(stage.steps),
        "tasks": stage.tasks,
        "logging_dir": str(stage.folder),
        "workers": config.worker_count(),
    }
    if config.executor == "ray":
        _run_on_ray(stage, config, settings)
        return
    failures = WatchedLocalExecutor(stage.name, **settings).run()
    if failures:
        raise StageFailed(_failed(stage, failures))


def _run_on_ray(stage: Stage, config: ExecutorConfig, settings: dict[str, Any]) -> None:
    if importlib.util.find_spec("ray") is None:
        raise UserError(
            "executor.executor is ray, but ray is not installed; `pip install 'ray[default]'`, or "
            "take local or slurm"
        )
    executor = RecordedRayExecutor(
        **settings, cpus_per_task=config.cpus_per_task, mem_per_cpu_gb=config.mem_per_cpu_gb
    )
    try:
        executor.run()
    except Exception as error:
        # Ray's error wraps the task's; what the task itself wrote down says more.
        _refuse_missing(stage)
        raise error
    _refuse_missing(stage)


def _submit(stages: Sequence[Stage], config: ExecutorConfig, wait_for_jobs: bool) -> None:
    before = None
    for stage in stages:
        if not stage.missing():
            continue
        before = QuietSlurmExecutor(
            pipeline=list(stage.steps),
            tasks=stage.tasks,
            workers=config.workers or -1,
            logging_dir=str(stage.folder.resolve()),
            job_name=stage.name,
            depends=before,
            partition=config.partition,
            time=config.time,
            qos=config.qos,
            cpus_per_task=config.cpus_per_task,
            mem_per_cpu_gb=config.mem_per_cpu_gb,
            max_array_size=config.max_array_size,
            env_command=config.env_command,
            # A stage behind one that failed could never start, so it is cancelled.
            sbatch_args={"kill-on-invalid-dep": "yes", **config.sbatch_args},
        )
        _sbatch(before)
    while wait_for_jobs and before is not None and _is_queued(before.job_id):
        time.sleep(_POLL_S)


def _sbatch(executor: QuietSlurmExecutor) -> None:
    try:
        executor.run()
    except FileNotFoundError as error:
        raise UserError(
            "executor.executor is slurm, but there is no sbatch on this machine; run on a node "
            "that submits jobs, or set executor.executor=local"
        ) from error
    except subprocess.CalledProcessError as error:
        raise UserError(
            f"sbatch refused the job {executor.job_name} (its reason is above); check "
            "executor.partition, executor.time, executor.qos and executor.sbatch_args"
        ) from error


def _is_queued(job_id: str) -> bool:
    answer = subprocess.run(
        ["squeue", "--noheader", "--jobs", str(job_id)], capture_output=True, text=True
    )
    return bool(answer.stdout.strip())


def _refuse_missing(stage: Stage) -> None:
    missing = stage.missing()
    if missing:
        raise StageFailed(_failed(stage, {r: read_failure(stage.folder, r) for r in missing}))


def _failed(stage: Stage, failures: dict[int, str]) -> str:
    shown = [f"task {rank}: {reason}" for rank, reason in sorted(failures.items())[:5]]
    more = [f"and {len(failures) - 5} more"] if len(failures) > 5 else []
    return (
        f"{len(failures)} of {stage.tasks} tasks of the stage {stage.name} failed; mend the cause "
        "and give the same command again, which repeats only these. Their logs are in "
        f"{stage.folder}/logs\n  " + "\n  ".join(shown + more)
    )
