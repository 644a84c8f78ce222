"""A world of processes for the tests: started once, used by one case after another.

Core's process groups, a pipeline, a resharded checkpoint can only be tested by several processes.
Importing torch and core takes seconds, so a fork server imports them once and every worker is
forked from it; eight workers then start in a second and stay for the whole session.
"""

import contextlib
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.distributed import TCPStore

from tests.offline import forbid_network

ROOT = Path(__file__).parents[1]
PRELOAD = ["pytest", "megatron_biollm.training.optimizer", "megatron_biollm.training.step"]
# After one rank has failed, the others hang in a collective or fail within a moment.
GRACE_S = 5.0


class WorkerError(AssertionError):
    """A rank of a case raised an exception, died, or gave no answer in time."""


@dataclass
class _Worker:
    process: Any
    pipe: Connection


@dataclass
class _Answer:
    value: Any = None
    error: str | None = None
    at: float = 0.0


class World:
    """Persistent worker processes, of which a case uses as many as it asks for."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)
        self._workers: list[_Worker] = []

    def run(
        self,
        size: int,
        function: Callable[..., Any],
        *args: Any,
        joined: bool = True,
        timeout: float = 120.0,
    ) -> list[Any]:
        """Calls `function(*args)` on every rank of a fresh world of `size` processes.

        The environment is torchrun's (RANK, WORLD_SIZE, MASTER_PORT, ...).

        Args:
            size: number of ranks.
            function: defined at the top of a module, so that it can be pickled by its name.
            args: picklable.
            joined: the function runs inside the CPU's core context with `group_step_adam()` and
                joined process group, which are left afterwards; else it does all that itself.
            timeout: seconds for the whole case.

        Returns:
            Every rank's value, by rank.

        Raises:
            WorkerError: with the traceback of the rank that failed first, or the ranks that did
                not answer.
        """
        self._start(size)
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        case = pickle.dumps((function, args, joined))
        for rank, worker in enumerate(self._workers[:size]):
            worker.pipe.send_bytes(pickle.dumps(_torchrun_environment(rank, size, store.port)))
            worker.pipe.send_bytes(case)
        answers = self._collect(size, time.monotonic() + timeout)
        silent = [rank for rank in range(size) if rank not in answers]
        self._stop(silent)
        failed = sorted((a.at, rank) for rank, a in answers.items() if a.error is not None)
        if failed or silent:
            name = f"{function.__module__}.{function.__qualname__}{args} on {size} processes"
            first = f"rank {failed[0][1]}:\n{answers[failed[0][1]].error}" if failed else ""
            waited = f"no answer from ranks {silent} (timeout {timeout:.0f} s)\n" if silent else ""
            raise WorkerError(f"{name}: {waited}{first}")
        return [answers[rank].value for rank in range(size)]

    def close(self) -> None:
        """Ends every worker."""
        self._stop(range(len(self._workers)))

    def _start(self, size: int) -> None:
        """Brings the first `size` workers to life, those that a former case lost included."""
        for rank in range(size):
            if rank < len(self._workers) and self._workers[rank].process.is_alive():
                continue
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=_work, args=(theirs,), name=f"worker {rank}")
            with mock.patch.dict(os.environ, OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore"):
                process.start()
            theirs.close()
            self._workers[rank : rank + 1] = [_Worker(process, ours)]

    def _collect(self, size: int, deadline: float) -> dict[int, _Answer]:
        answers: dict[int, _Answer] = {}
        while len(answers) < size and (left := deadline - time.monotonic()) > 0:
            pipes = {w.pipe: r for r, w in enumerate(self._workers[:size]) if r not in answers}
            for pipe in wait(list(pipes), timeout=left):
                rank = pipes[pipe]
                try:
                    answers[rank] = pickle.loads(pipe.recv_bytes())
                except EOFError:
                    self._stop([rank])
                    # Time 0: whatever the others report came after it.
                    answers[rank] = _Answer(error="the process died", at=0.0)
                if answers[rank].error is not None:
                    deadline = min(deadline, time.monotonic() + GRACE_S)
        return answers

    def _stop(self, ranks: Any) -> None:
        for rank in ranks:
            worker = self._workers[rank]
            # The group: a worker may have started processes of its own, such as core's writers.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.process.pid, signal.SIGKILL)
            worker.process.join()
            worker.pipe.close()


@contextlib.contextmanager
def joined_world() -> Iterator[None]:
    """This process as a rank of the world that the environment describes, on the CPU."""
    from megatron_biollm.device.runtime import select_device
    from megatron_biollm.parallel.process_groups import destroy_process_groups
    from megatron_biollm.training.optimizer import group_step_adam

    device = select_device("cpu")
    with device.core_context(), group_step_adam():
        device.init_distributed(timeout_minutes=2)
        try:
            yield
        finally:
            destroy_process_groups()


def _torchrun_environment(rank: int, size: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        # As under torchrun, the store lives in another process than the ranks.
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }


def _work(pipe: Connection) -> None:
    """A worker's life: one case after another until the pipe is closed."""
    os.setpgid(0, 0)
    sys.path.insert(0, str(ROOT))
    warnings.simplefilter("ignore")
    forbid_network()
    torch.set_num_threads(1)
    gc.freeze()  # what the fork server imported is shared memory, and collecting would copy it
    before = dict(os.environ)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            os.environ.update(pickle.loads(pipe.recv_bytes()))
            pipe.send_bytes(_answer(pipe.recv_bytes()))
            os.environ.clear()
            os.environ.update(before)
            _end_children()
            gc.collect()
    _end_children()


def _end_children() -> None:
    for child in multiprocessing.active_children():
        child.kill()
        child.join()


def _answer(case: bytes) -> bytes:
    try:
        function, args, joined = pickle.loads(case)
        with joined_world() if joined else contextlib.nullcontext():
            # Inside: the others fail as soon as this rank leaves its process groups.
            answer = _call(function, args)
        return pickle.dumps(answer)
    except BaseException:
        return pickle.dumps(_Answer(error=traceback.format_exc(), at=time.time()))


def _call(function: Callable[..., Any], args: tuple[Any, ...]) -> _Answer:
    try:
        return _Answer(function(*args))
    except BaseException:
        return _Answer(error=traceback.format_exc(), at=time.time())
