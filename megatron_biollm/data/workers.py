"""A function applied to a stream by several processes, in order and in bounded memory."""

import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_AHEAD = 4  # tasks per worker under way: enough to keep all busy, little enough to hold in memory


def ordered_map(
    make: Callable[[], Callable[[Any], Any]], tasks: Iterable, workers: int
) -> Iterator[Any]:
    """Yields `make()(task)` for every task, in the order of the tasks.

    make: called once in each worker, so that a tokenizer is loaded once; with more than one worker
    it travels to fresh processes and must be picklable. One worker means this process.

    Raises:
        Exception: what a worker raised, at its task's place in the order; RuntimeError where a
            worker process died.
    """
    if workers == 1:
        yield from map(make(), tasks)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy locks held by threads
    todo, done = context.Queue(), context.Queue()
    crew = [context.Process(target=_work, args=(make, todo, done)) for _ in range(workers)]
    try:
        for process in crew:
            process.start()
        yield from _in_order(tasks, todo, done, crew)
    finally:
        for process in crew:
            process.terminate()
        for process in crew:
            process.join()
        for channel in (todo, done):
            channel.cancel_join_thread()
            channel.close()


def _in_order(tasks: Iterable, todo: Any, done: Any, crew: list) -> Iterator[Any]:
    numbered, waiting, sent, yielded = enumerate(tasks), {}, 0, 0
    while True:
        while sent - yielded < _AHEAD * len(crew):
            item = next(numbered, None)
            if item is None:
                break
            todo.put(item)
            sent += 1
        if yielded == sent:
            return
        while yielded not in waiting:
            number, result, error = _receive(done, crew)
            waiting[number] = (result, error)
        result, error = waiting.pop(yielded)
        if error is not None:
            raise error
        yield result
        yielded += 1


def _receive(done: Any, crew: list) -> tuple[int, Any, Exception | None]:
    while True:
        try:
            return done.get(timeout=1.0)
        except queue.Empty:
            dead = [process.exitcode for process in crew if process.exitcode is not None]
            if dead:
                raise RuntimeError(
                    f"a worker process ended with exit status {dead[0]}; if it was killed (-9) the "
                    "machine may be out of memory: give fewer --workers"
                ) from None


def _work(make: Callable[[], Callable], todo: Any, done: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    function, failure = None, None
    try:
        function = make()
    except Exception as error:
        failure = _portable(error)
    while True:
        number, task = todo.get()
        try:
            done.put((number, function(task), None) if function else (number, None, failure))
        except Exception as error:
            done.put((number, None, _portable(error)))


def _end_with_parent() -> None:
    # A killed parent leaves a pipe behind that never ends, since we hold its other side too.
    multiprocessing.parent_process().join()
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error itself if it is ours, else one that carries its traceback as text."""
    if isinstance(error, ValueError) and type(error).__module__.startswith("megatron_biollm"):
        return error
    return RuntimeError(f"in a worker process:\n{''.join(traceback.format_exception(error))}")
