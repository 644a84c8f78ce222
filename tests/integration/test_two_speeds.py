"""Fast checkpoints between those for any layout: what is lost, what is kept, what is loaded."""

import shutil

import pytest

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.report import inspect_checkpoint
from tests.distributed import WorkerError
from tests.integration.recipe import (
    layout,
    log_of,
    pretrain_here,
    rows,
    torchrun,
    trained,
    write_inputs,
)
from tests.integration.test_kill import DIE_AT

OPTIONS = [
    "training.train_iters=8",
    "checkpoint.save_interval=4",
    "checkpoint.fast_save_interval=1",
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs")) + OPTIONS


@pytest.fixture(scope="module")
def uninterrupted(world, inputs, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("uninterrupted")
    world.run(2, pretrain_here, [*inputs, f"run_dir={run_dir}"], joined=False)
    return run_dir


@pytest.fixture(scope="module")
def killed(inputs, tmp_path_factory):
    """Two data-parallel ranks, killed in step 7 before it is saved."""
    run_dir = tmp_path_factory.mktemp("killed")
    death = {"DIE_AT": "step 7", "DIE_RANK": "0"}
    done = torchrun(2, DIE_AT, [*inputs, f"run_dir={run_dir}"], **death)
    assert done.returncode != 0, done.stderr[-3000:]
    return run_dir


@pytest.fixture
def run_dir(killed, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(killed, copy, ignore=shutil.ignore_patterns("logs"))
    return copy


def formats(run_dir):
    folders = reversed(verify.step_folders(run_dir / "checkpoints"))
    return [(verify.step_of(f), inspect_checkpoint(f).format) for f in folders]


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)


def resume(world, inputs, run_dir, processes=2, degrees=()):
    options = [*inputs, *degrees, f"run_dir={run_dir}"]
    world.run(processes, pretrain_here, options, joined=False)
    return log_of(run_dir)


def test_fast_ones_go_when_a_newer_one_for_any_layout_is_there(killed, uninterrupted):
    assert formats(killed) == [(4, "reshardable"), (5, "fast"), (6, "fast")]
    assert formats(uninterrupted) == [(4, "reshardable"), (8, "reshardable")]


def test_a_killed_run_goes_on_from_the_fast_one_bit_for_bit(world, inputs, run_dir, uninterrupted):
    assert "starting after step 6 " in resume(world, inputs, run_dir)
    assert trained(run_dir) == trained(uninterrupted)
    assert formats(run_dir) == [(4, "reshardable"), (8, "reshardable")]


@pytest.mark.parametrize("processes", [1, 4])
def test_another_number_of_data_parallel_ranks_takes_the_fast_one(
    world, inputs, run_dir, uninterrupted, processes
):
    assert "starting after step 6 " in resume(world, inputs, run_dir, processes)
    for step in (7, 8):
        loss = rows(uninterrupted)[step]["loss"]
        assert rows(run_dir)[step]["loss"] == pytest.approx(loss, rel=1e-5)


def test_another_layout_passes_the_fast_ones_over_and_says_what_that_costs(
    world, inputs, run_dir, uninterrupted
):
    log = resume(world, [*inputs, "training.exit_interval=5"], run_dir, 2, layout(tp=2))
    checkpoints = run_dir / "checkpoints"
    assert "starting after step 4 " in log
    assert f"{checkpoints / 'step_00000006'} is a fast checkpoint, saved as TP1" in log
    assert f"Going on from {checkpoints / 'step_00000004'} (reshardable), so that 2 steps" in log
    # The one of step 5 was made again, and is older than none that could replace it but itself.
    assert formats(run_dir) == [(4, "reshardable"), (5, "reshardable"), (6, "fast")]
    loss = rows(uninterrupted)[5]["loss"]
    assert rows(run_dir)[5]["loss"] == pytest.approx(loss, rel=1e-5)


def test_the_last_step_of_a_run_is_saved_for_any_layout_where_it_was_fast(world, inputs, run_dir):
    resume(world, [*inputs, "training.train_iters=6"], run_dir)
    assert formats(run_dir) == [(4, "reshardable"), (6, "reshardable")]


@pytest.mark.parametrize(
    ("damaged", "start"), [([6], 5), ([6, 5], 4)], ids=["to the fast one before", "past all"]
)
def test_damaged_fast_ones_are_passed_over(world, inputs, run_dir, uninterrupted, damaged, start):
    for step in damaged:
        folder = verify.step_folder(run_dir / "checkpoints", step)
        flip_a_byte(next(folder.glob("__1_*.distcp")))
    log = resume(world, inputs, run_dir)
    assert f"starting after step {start} " in log and "was changed" in log
    assert trained(run_dir) == trained(uninterrupted)


def test_a_fast_one_under_a_damaged_one_for_any_layout_is_not_needed(
    world, inputs, run_dir, uninterrupted
):
    """Mixed the other way: the fast ones are good, the older one is not."""
    flip_a_byte(run_dir / "checkpoints" / "step_00000004" / "config.yaml")
    assert "starting after step 6 " in resume(world, inputs, run_dir)
    assert trained(run_dir) == trained(uninterrupted)


def test_in_another_layout_without_any_that_fits_the_run_does_not_begin_anew(
    world, inputs, run_dir
):
    shutil.rmtree(run_dir / "checkpoints" / "step_00000004")
    with pytest.raises(WorkerError, match=r"none of the 2 checkpoints in .* can be used, .*fast"):
        resume(world, inputs, run_dir, 2, layout(tp=2))
