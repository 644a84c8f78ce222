import pytest

from megatron_biollm.config import UserError
from megatron_biollm.device.runtime import select_device
from megatron_biollm.recipes.benchmarks.sides import (
    Outcome,
    Side,
    Step,
    Turns,
    side_row,
    take_turns,
)

CPU = select_device("cpu")


def noting(log, name):
    """A side that writes down when it is built and stepped."""

    def build():
        log.append(f"build {name}")
        return Step(lambda: log.append(name), f"kernels of {name}")

    return Side(name, build)


def raising(error, at_step):
    def fail():
        raise error

    return Side("broken", lambda: Step(fail) if at_step else fail())


def turns(**changes):
    return Turns(**{"repeats": 2, "speaks": False} | changes)


def test_sides_that_are_there_at_once_alternate():
    log = []
    outcomes = take_turns([noting(log, "a"), noting(log, "b")], CPU, turns())
    assert log == ["build a", "build b"] + ["a", "b"] * 4  # two untimed and two timed
    assert [len(one.seconds) for one in outcomes.values()] == [2, 2]
    assert outcomes["a"].kernels == "kernels of a"


def test_visits_build_a_side_anew_and_share_the_timed_steps():
    log = []
    outcomes = take_turns([noting(log, "a"), noting(log, "b")], CPU, turns(repeats=3, visits=2))
    assert [entry for entry in log if entry.startswith("build")] == [
        "build a", "build b", "build a", "build b",
    ]  # fmt: skip
    assert log.count("a") == 3 + 2 * 2
    assert [len(one.seconds) for one in outcomes.values()] == [3, 3]


@pytest.mark.parametrize("visits", [0, 2])
@pytest.mark.parametrize("at_step", [False, True])
def test_a_side_that_cannot_run_gives_its_reason_and_the_others_go_on(visits, at_step):
    log = []
    sides = [raising(UserError("needs a GPU"), at_step), noting(log, "a")]
    outcomes = take_turns(sides, CPU, turns(visits=visits))
    assert outcomes["broken"].reason == "needs a GPU"
    assert len(outcomes["a"].seconds) == 2


def test_what_is_no_user_error_is_named_and_cut():
    outcomes = take_turns([raising(MemoryError("too large " * 99), False)], CPU, turns())
    assert outcomes["broken"].reason.startswith("MemoryError: too large")
    assert len(outcomes["broken"].reason) <= 300


@pytest.mark.parametrize("visits", [0, 2])
def test_a_side_elsewhere_times_itself(visits):
    asked = []
    side = Side("far", elsewhere=lambda count: asked.append(count) or Outcome([1.0] * count, 7))
    outcome = take_turns([side], CPU, turns(repeats=4, visits=visits))["far"]
    assert sum(asked) == len(outcome.seconds) == 4
    assert outcome.peak_memory_bytes == 7


def test_a_row_has_rates_of_the_median_step():
    row = side_row(Side("a", state="fp32"), Outcome([1.0, 4.0, 2.0]), tokens=100, flops=1e10)
    assert (row["step_time_s"], row["fastest_s"], row["slowest_s"]) == (2.0, 1.0, 4.0)
    assert row["tokens_per_second"] == 50
    assert row["tflops"] == pytest.approx(0.5)


def test_a_row_without_times_has_a_reason_and_no_rates():
    row = side_row(Side("a"), Outcome([1.0], reason="out of memory"), tokens=1, flops=1)
    assert row["reason"] == "out of memory"
    assert row["tokens_per_second"] is row["tflops"] is row["step_time_s"] is None
