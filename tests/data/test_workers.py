import functools
import os
import signal
import time

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.data.workers import WorkerDied, ordered_map


def make_slow_square(slow):
    def square(number):
        time.sleep(0.05 if number == slow else 0)
        return number * number

    return square


def make_failing(kind):
    def fail(number):
        if number == 5 and kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 5:
            raise UserError("five is bad") if kind == "user" else KeyError("five")
        return number

    return fail


def make_nothing():
    raise UserError("no tokenizer")


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_tasks(workers):
    make = functools.partial(make_slow_square, 0)
    assert list(ordered_map(make, range(40), workers)) == [n * n for n in range(40)]


def test_tasks_are_taken_only_as_they_are_needed():
    taken = []
    tasks = (taken.append(n) or n for n in range(1000))
    results = ordered_map(functools.partial(make_slow_square, 0), tasks, 2)
    next(results)
    assert len(taken) <= 17  # eight for each worker, and the next one
    results.close()


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("user", UserError, "five is bad"),
        ("bug", RuntimeError, "KeyError"),
        ("killed", WorkerDied, "exit status -9.*out of memory"),
    ],
)
def test_an_error_in_a_worker_comes_after_the_results_before_it(kind, error, said):
    seen = []
    with pytest.raises(error, match=said):
        seen.extend(ordered_map(functools.partial(make_failing, kind), range(9), 2))
    assert seen == list(range(5)) or kind == "killed"


def test_an_error_while_a_worker_starts_is_told():
    with pytest.raises(UserError, match="no tokenizer"):
        list(ordered_map(make_nothing, range(3), 2))
