"""A function applied to a stream by several processes, in order and in bounded memory."""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from megatron_biollm.config import UserError

_AHEAD = 8  # results per worker that may wait for an earlier one


class WorkerDied(UserError):
    """A worker process ended by itself; what it was doing is lost, the rest is not."""


def ordered_map(
    make: Callable[[], Callable[[Any], Any]], tasks: Iterable, workers: int
) -> Iterator[Any]:
    """Yields `make()(task)` for every task, in the order of the tasks.

    make: called once in each worker, so that a tokenizer is loaded once; with more than one worker
    it travels to fresh processes and must be picklable. One worker means this process.

    Raises:
        Exception: what a worker raised, at its task's place in the order.
        WorkerDied: a worker process ended, at once and without waiting for the others.
    """
    if workers == 1:
        yield from map(make(), tasks)
        return
    crew: list[_Worker] = []
    try:
        crew.extend(_Worker(make) for _ in range(workers))
        yield from _in_order(enumerate(tasks), crew)
    finally:
        for worker in crew:
            worker.process.terminate()
        for worker in crew:
            worker.process.join()
            worker.pipe.close()


class _Worker:
    """A process with a pipe of its own: a killed one can hold no lock that others need."""

    def __init__(self, make: Callable[[], Callable]):
        context = multiprocessing.get_context("spawn")  # a fork would copy locks held by threads
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(make, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def send(self, item: tuple[int, Any]) -> None:
        try:
            self.pipe.send(item)
        except (BrokenPipeError, ConnectionResetError):
            self._died()

    def receive(self) -> tuple[int, Any, Exception | None]:
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._died()

    def _died(self) -> None:
        self.process.join()
        raise WorkerDied(
            f"a worker process ended with exit status {self.process.exitcode}; if it was killed "
            "(-9) the machine may be out of memory: give fewer --workers and run it again"
        ) from None


def _in_order(numbered: Iterator[tuple[int, Any]], crew: list[_Worker]) -> Iterator[Any]:
    waiting: dict[int, tuple[Any, Exception | None]] = {}
    idle, busy, yielded = list(crew), {}, 0
    following = next(numbered, None)
    while True:
        while following and idle and following[0] - yielded < _AHEAD * len(crew):
            worker = idle.pop()
            worker.send(following)
            busy[worker.pipe] = worker
            following = next(numbered, None)  # made ready while the workers are busy
        while yielded in waiting:
            result, error = waiting.pop(yielded)
            if error is not None:
                raise error
            yield result
            yielded += 1
        if not busy and not following:
            return
        for pipe in _readable(busy):
            number, result, error = busy[pipe].receive()
            waiting[number] = (result, error)
            idle.append(busy.pop(pipe))


def _readable(busy: dict[Connection, _Worker]) -> list[Connection]:
    return wait(list(busy)) if busy else []


def _work(make: Callable[[], Callable], pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    function, failure = None, None
    try:
        function = make()
    except Exception as error:
        failure = _portable(error)
    while True:
        try:
            number, task = pipe.recv()
        except EOFError:
            return
        try:
            reply = (number, function(task), None) if function else (number, None, failure)
        except Exception as error:
            reply = (number, None, _portable(error))
        pipe.send(reply)


def _end_with_parent() -> None:
    # A worker in the middle of a task would notice a killed parent only at its end.
    multiprocessing.parent_process().join()
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error itself if it is ours, else one that carries its traceback as text."""
    if isinstance(error, ValueError) and type(error).__module__.startswith("megatron_biollm"):
        return error
    return RuntimeError(f"in a worker process:\n{''.join(traceback.format_exception(error))}")
