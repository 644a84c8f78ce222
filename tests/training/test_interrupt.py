"""A wish to stop or save, on any rank, is obeyed by all ranks at the same poll."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from megatron_biollm.training.interrupt import SAVE_FILE, STOP_FILE, Interrupt, StopTraining
from megatron_biollm.training.signals import STOP_SIGNALS, StopSignals
from tests.distributed import ROOT


def polls(interrupt: Interrupt, count: int) -> list[str]:
    """What each of some polls says."""
    said = []
    for _ in range(count):
        try:
            interrupt.poll()
            said.append("save" if interrupt.take_save() else "")
        except StopTraining as stop:
            said.append(str(stop))
    return said


def signalled_on_rank_1(run_dir: Path, number: int) -> list[str]:
    with StopSignals() as signals:
        interrupt = Interrupt(signals, run_dir, torch.distributed.group.WORLD)
        said = polls(interrupt, 1)
        if torch.distributed.get_rank() == 1:
            os.kill(os.getpid(), number)
        return said + polls(interrupt, 2)


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_a_signal_to_one_rank_stops_all_of_them(world, tmp_path, number):
    said = world.run(2, signalled_on_rank_1, tmp_path, number)
    assert said == [["", number.name, number.name]] * 2


def asked_by_files(run_dir: Path) -> list[str]:
    rank = torch.distributed.get_rank()
    interrupt = Interrupt(StopSignals(), run_dir, torch.distributed.group.WORLD)
    said = []
    for name in (SAVE_FILE, STOP_FILE):
        if rank == 0:
            (run_dir / name).touch()
        said += polls(interrupt, 2)
    interrupt.done()
    return said


def test_files_are_obeyed_once(world, tmp_path):
    stopped = f"the file {tmp_path / STOP_FILE}"
    assert world.run(2, asked_by_files, tmp_path) == [["save", "", stopped, stopped]] * 2
    assert list(tmp_path.iterdir()) == []


def cut_short_on_rank_0(run_dir: Path) -> tuple[int, list[str]]:
    interrupt = Interrupt(StopSignals(), run_dir, torch.distributed.group.WORLD)
    parts = 0
    if torch.distributed.get_rank() == 0:
        with interrupt.cut_short() as between:
            for parts in range(1, 10):
                if parts == 3:
                    (run_dir / STOP_FILE).touch()
                between(parts)
        (run_dir / STOP_FILE).unlink()  # whoever changes his mind is too late
    return parts, [said[:8] for said in polls(interrupt, 1)]


def test_work_that_others_wait_for_is_cut_short(world, tmp_path):
    assert world.run(2, cut_short_on_rank_0, tmp_path) == [(3, ["the file"]), (0, ["the file"])]


def test_afterwards_the_handlers_are_as_before():
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
    assert signals.received == "SIGUSR1"
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_a_second_sigint_interrupts_as_usual():
    # A shell has its background jobs ignore SIGINT; this process may be one.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _interrupt_twice()
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt_twice():
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


FORKED = """
import os, signal, time
from megatron_biollm.training.signals import StopSignals
with StopSignals() as signals:
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(7 if signal.alarm(0) > 60 else 8)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), signals.received)
"""


def test_a_forked_writer_outlives_the_signal_that_stops_its_rank():
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.split() == ["7", "None"]
