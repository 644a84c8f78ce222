"""Tasks in processes of this machine, watched: whatever becomes of one costs that task alone."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from copy import deepcopy
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.utils.logging import logger
from tqdm import tqdm

from megatron_biollm.config import UserError
from megatron_biollm.log import Progress

_POLL_S = 2.0
# A process takes a tenth of a second to start, as long as a small task.
_TASKS_PER_PROCESS = 8


class RestartTask(Exception):
    """Raised by a step that has learnt something: its task starts again from the beginning."""


class Recorded:
    """Keeps a failed task's reason where whoever started the stage can read it."""

    def _run_for_rank(self, rank: int, *args: Any, **kwargs: Any) -> Any:
        logger.configure(patcher=_without_values)
        failure = failure_file(Path(self.logging_dir.path), rank)
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


class WatchedLocalExecutor(Recorded, LocalPipelineExecutor):
    """Runs tasks in processes, a few in each, and outlives whatever becomes of them."""

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
        context.set_forkserver_preload(["megatron_biollm.corpus.curation"])
        share = max(1, min(_TASKS_PER_PROCESS, len(todo) // (2 * self.workers)))
        running: dict[int, tuple[Any, list[int]]] = {}
        failures: dict[int, str] = {}
        with Progress(self.tasks, self.name, "tasks", self.tasks - len(todo)) as progress:
            try:
                while todo or running:
                    while todo and len(running) < self.workers:
                        ranks, todo = todo[:share], todo[share:]
                        process = context.Process(
                            target=_run_tasks, args=(self, ranks, dict(os.environ))
                        )
                        process.start()
                        running[process.sentinel] = process, ranks
                    for sentinel in wait(list(running), timeout=_POLL_S):
                        process, ranks = running.pop(sentinel)
                        process.join()
                        ended, left = self._outcome(ranks, process.exitcode)
                        failures |= ended
                        todo = left + todo
                        progress.update(len(ranks) - len(left))
            finally:
                for process, _ in running.values():
                    process.terminate()
                    process.join()
        return failures

    def _outcome(self, ranks: list[int], exitcode: int) -> tuple[dict[int, str], list[int]]:
        """The failed tasks of a process that has ended, and those it did not come to."""
        missing = self.get_incomplete_ranks(ranks)
        failed = {rank: self._reason(rank) for rank in missing if self._has_failed(rank)}
        rest = [rank for rank in missing if rank not in failed]
        if rest and exitcode:
            # It was killed at work on the first one, or could write nothing at all.
            failed[rest[0]] = _killed(exitcode)
            rest = rest[1:]
        return failed, rest

    def _has_failed(self, rank: int) -> bool:
        return failure_file(Path(self.logging_dir.path), rank).exists()

    def _reason(self, rank: int) -> str:
        return read_failure(Path(self.logging_dir.path), rank)


def _run_tasks(
    executor: WatchedLocalExecutor, ranks: list[int], environment: dict[str, str]
) -> None:
    os.environ.clear()  # the server that forks us has that of its own beginning
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Its own is a semaphore of the system, which the exit below would leave behind.
    tqdm.set_lock(threading.RLock())
    # What datatrove says to the console is in the task's log, and the parent names the reason.
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 (open until the process ends)
    for rank in ranks:
        failure_file(Path(executor.logging_dir.path), rank).unlink(missing_ok=True)
    status = 0
    for rank in ranks:
        try:
            deepcopy(executor)._run_for_rank(rank, local_rank=1)
        except Exception:  # its reason has been written down, unless the disk is full
            status = 1
    os._exit(status)


def _without_values(record: dict[str, Any]) -> None:
    """Loguru writes the values of variables into a traceback: texts, clinical notes too."""
    error = record["exception"]
    if error is not None:
        record["message"] = "".join(traceback.format_exception(error.value))
        record["exception"] = None


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _killed(exitcode: int) -> str:
    if exitcode > 0:
        return "it could not even write down its reason; the disk may be full"
    name = signal.Signals(-exitcode).name
    memory = "; the machine may be out of memory: give fewer executor.workers"
    return f"its process was ended by {name}{memory if name == 'SIGKILL' else ''}"


def failure_file(folder: Path, rank: int) -> Path:
    return folder / "failures" / f"{rank:05d}.txt"


def read_failure(folder: Path, rank: int) -> str:
    file = failure_file(folder, rank)
    return file.read_text(encoding="utf-8") if file.exists() else "it ended without a word"
