"""Stages of the curation on datatrove's local, SLURM and Ray executors.

What datatrove 0.10 does to its users and must not do to ours:

* A local worker that is killed leaves its pool waiting for ever. Here every task is a process of
  its own whose end is watched: the others go on, and the failed ones are named at the end.
* A changed input or setting counts as "already done". Here a stage's folder bears the digest of
  everything its result depends on (`corpus/stages.py`).
* On SLURM, jobs wait for ever for one that failed, and a job is queued that merges statistics
  nobody reads. Here they are cancelled, respectively left out.
"""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.executor.ray import RayPipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from megatron_biollm.config import UserError
from megatron_biollm.corpus.config import ExecutorConfig
from megatron_biollm.log import Progress

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


class RestartTask(Exception):
    """Raised by a step that has learnt something: its task starts again from the beginning."""


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
    # A traceback with the values of variables would copy texts, clinical notes too, into a log.
    os.environ["LOGURU_DIAGNOSE"] = "NO"
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


class _Recorded:
    """Keeps a failed task's reason where whoever started the stage can read it."""

    def _run_for_rank(self, rank: int, *args: Any, **kwargs: Any) -> Any:
        failure = _failure_file(Path(self.logging_dir.path), rank)
        try:
            result = self._with_restarts(rank, *args, **kwargs)
        except BaseException as error:
            failure.parent.mkdir(parents=True, exist_ok=True)
            lines = traceback.format_exception_only(error)
            reason = str(error) if isinstance(error, UserError) else lines[-1].strip()
            failure.write_text(reason, encoding="utf-8")
            raise
        failure.unlink(missing_ok=True)
        return result

    def _with_restarts(self, rank: int, *args: Any, **kwargs: Any) -> Any:
        while True:
            with contextlib.suppress(RestartTask):
                return super()._run_for_rank(rank, *args, **kwargs)


class WatchedLocalExecutor(_Recorded, LocalPipelineExecutor):
    """Runs each task in a process of its own and outlives whatever becomes of it."""

    def __init__(self, name: str, **settings: Any):
        super().__init__(**settings)
        self.name = name

    def run(self) -> dict[int, str]:
        """Runs what is missing, with a progress bar of that name.

        Returns:
            The reason of each failed task, by its rank.
        """
        todo = self.get_incomplete_ranks()
        self.save_executor_as_json()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["megatron_biollm.corpus.executor"])
        running: dict[int, tuple[Any, int]] = {}
        failures: dict[int, str] = {}
        with Progress(self.tasks, self.name, "tasks", self.tasks - len(todo)) as progress:
            try:
                while todo or running:
                    while todo and len(running) < self.workers:
                        process = context.Process(target=_run_task, args=(self, todo[0]))
                        process.start()
                        running[process.sentinel] = process, todo.pop(0)
                    for sentinel in wait(list(running), timeout=_POLL_S):
                        process, rank = running.pop(sentinel)
                        process.join()
                        if process.exitcode:
                            failures[rank] = self._reason(rank, process.exitcode)
                        progress.update()
            finally:
                for process, _ in running.values():
                    process.terminate()
                    process.join()
        return failures

    def _reason(self, rank: int, exitcode: int) -> str:
        if exitcode > 0:
            return _read_failure(Path(self.logging_dir.path), rank)
        name = signal.Signals(-exitcode).name
        return f"its process was ended by {name}" + (
            "; the machine may be out of memory: give fewer executor.workers"
            if name == "SIGKILL"
            else ""
        )


class QuietSlurmExecutor(_Recorded, SlurmPipelineExecutor):
    """Submits a job array and nothing else."""

    def launch_merge_stats(self) -> None:
        """No job for statistics: ours lie beside the shards."""


class RecordedRayExecutor(_Recorded, RayPipelineExecutor):
    """Ray's own executor, with the reason of each failed task kept."""


def _run_task(executor: WatchedLocalExecutor, rank: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # What datatrove says to the console is in the task's log, and the parent names the reason.
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 (open until the process ends)
    try:
        executor._run_for_rank(rank, local_rank=1)
    except Exception:
        os._exit(1)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _run_here(stage: Stage, config: ExecutorConfig) -> None:
    if not stage.missing():
        return
    failures = _local_or_ray(stage, config).run() or {}
    if failures:
        raise StageFailed(_failed(stage, failures))


def _local_or_ray(stage: Stage, config: ExecutorConfig) -> Any:
    shared = {
        "pipeline": list(stage.steps),
        "tasks": stage.tasks,
        "logging_dir": str(stage.folder),
        "workers": config.worker_count(),
    }
    if config.executor == "local":
        return WatchedLocalExecutor(stage.name, **shared)
    if importlib.util.find_spec("ray") is None:
        raise UserError(
            "executor.executor is ray, but ray is not installed; `pip install 'ray[default]'`, or "
            "take local or slurm"
        )
    return RecordedRayExecutor(
        **shared, cpus_per_task=config.cpus_per_task, mem_per_cpu_gb=config.mem_per_cpu_gb
    )


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
        raise StageFailed(_failed(stage, {r: _read_failure(stage.folder, r) for r in missing}))


def _failed(stage: Stage, failures: dict[int, str]) -> str:
    shown = [f"task {rank}: {reason}" for rank, reason in sorted(failures.items())[:5]]
    more = [f"and {len(failures) - 5} more"] if len(failures) > 5 else []
    return (
        f"{len(failures)} of {stage.tasks} tasks of the stage {stage.name} failed; mend the cause "
        "and give the same command again, which repeats only these. Their logs are in "
        f"{stage.folder}/logs\n  " + "\n  ".join(shown + more)
    )


def _failure_file(folder: Path, rank: int) -> Path:
    return folder / "failures" / f"{rank:05d}.txt"


def _read_failure(folder: Path, rank: int) -> str:
    file = _failure_file(folder, rank)
    return file.read_text(encoding="utf-8") if file.exists() else "it ended without a word"
