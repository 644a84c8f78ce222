"""Killed with signal 9 at any moment and started again, a run is as if nothing had happened."""

from pathlib import Path

import pytest

from megatron_biollm.checkpoint import verify
from megatron_biollm.launch.status import read_status
from tests.integration.recipe import (
    ROOT,
    layout,
    log_of,
    pretrain_here,
    torchrun,
    trained,
    write_inputs,
)

DIE_AT, PRETRAIN = Path(__file__).with_name("die_at.py"), ROOT / "tools" / "pretrain.py"
OPTIONS = ["training.train_iters=8", "checkpoint.save_interval=3", "checkpoint.keep_last=1"]

# Where it dies, on which rank, and the step that the next start must go on from.
SHORT = [
    ("step 2", 1, 0),
    ("writing", 1, 0),
    ("marked", 0, 0),
    ("step 5", 0, 3),
    ("removing", 0, 6),
]
LONG = [
    ("step 1", 0, 0),
    ("planned", 1, 0),
    ("writing", 0, 0),
    ("digesting", 2, 0),
    ("marked", 0, 0),
    ("step 3", 3, 0),
    ("step 4", 1, 3),
    ("writing", 3, 3),
    ("removing", 0, 6),
    ("step 8", 3, 6),
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs")) + OPTIONS


def check_killed_again_and_again(world, inputs, tmp_path, processes, deaths):
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    world.run(processes, pretrain_here, [*inputs, f"run_dir={alone}"], joined=False)
    starts = []
    for moment, rank, _ in deaths:
        death = {"DIE_AT": moment, "DIE_RANK": str(rank)}
        done = torchrun(processes, DIE_AT, [*inputs, f"run_dir={killed}"], **death)
        assert done.returncode != 0 and "SIGKILL" in done.stderr, (moment, done.stderr[-3000:])
        # Nor do the ranks that have lost it refuse to be started again.
        assert read_status(killed).state == "running", read_status(killed).reason
        starts.append(resumed_after(killed))
    done = torchrun(processes, PRETRAIN, [*inputs, f"run_dir={killed}"])
    assert done.returncode == 0, done.stderr[-3000:]
    starts.append(resumed_after(killed))
    expected = [0, *(step for _, _, step in deaths)]
    if "checkpoint.async_save=true" in inputs:  # commits later, so that a start may go further back
        assert all(
            start in (0, 3, 6) and start <= e for start, e in zip(starts, expected, strict=True)
        )
        assert starts == sorted(starts)
    else:
        assert starts == expected
    assert trained(killed) == trained(alone)
    check_only_good_checkpoints_are_left(killed / "checkpoints")


def resumed_after(run_dir) -> int:
    lines = [line for line in log_of(run_dir).splitlines() if "starting after step" in line]
    return int(lines[-1].split("starting after step ")[1].split()[0])


def check_only_good_checkpoints_are_left(directory):
    assert [path.name for path in directory.iterdir()] == ["step_00000008"]
    verify.verify_checkpoint(directory / "step_00000008")


def test_two_data_parallel_ranks(world, inputs, tmp_path):
    check_killed_again_and_again(world, inputs, tmp_path, 2, SHORT)


@pytest.mark.slow
@pytest.mark.parametrize("async_save", ["false", "true"])
def test_tensor_and_pipeline_parallel_ranks(world, inputs, tmp_path, async_save):
    options = [*layout(tp=2, pp=2, sp="true"), f"checkpoint.async_save={async_save}"]
    check_killed_again_and_again(world, inputs + options, tmp_path, 4, LONG)
