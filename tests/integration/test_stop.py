"""Asked to stop at any moment and started again, a run is as if nothing had happened."""

import pytest

from megatron_biollm.launch.status import read_status
from tests.integration.recipe import layout, pretrain_here, rows, write_inputs
from tests.integration.stop_at import pretrain_stopped

OPTIONS = [
    "training.train_iters=6",
    "training.eval_interval=3",
    "training.eval_iters=3",
    "checkpoint.save_interval=2",
    "data.split='80,20,0'",
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs")) + OPTIONS


def numbers(run_dir):
    """Everything in the metrics that does not depend on the clock."""
    timed = {"step_time_s", "tokens_per_second", "tflops_per_device", "mfu", "peak_memory_gb"}
    return {
        step: {name: value for name, value in row.items() if name not in timed}
        for step, row in rows(run_dir).items()
    }


def check_stopped_again_and_again(world, tmp_path, processes, options, stops):
    alone, stopped = tmp_path / "alone", tmp_path / "stopped"
    world.run(processes, pretrain_here, [*options, f"run_dir={alone}"], joined=False)
    assert read_status(alone).state == "finished"
    options = [*options, f"run_dir={stopped}"]
    for moment, rank, step in stops:
        reached = world.run(processes, pretrain_stopped, options, moment, rank, joined=False)
        status = read_status(stopped)
        assert (status.state, status.reason, status.step) == ("stopped", "SIGUSR1", step), moment
        assert status.committed_step == (step or None)
        assert set(reached) <= {step, 0}  # 0 where it stopped before it knew how far the run was
    world.run(processes, pretrain_here, options, joined=False)
    assert read_status(stopped).state == "finished"
    assert numbers(stopped) == numbers(alone)
    assert {3, 6} == {step for step, row in rows(stopped).items() if "validation_loss" in row}


def test_two_data_parallel_ranks(world, inputs, tmp_path):
    # Evaluation 2 of the second start is in the validation that the first had to leave.
    stops = [
        ("index", 0, 0),
        ("model", 1, 0),
        ("step 1", 1, 1),
        ("evaluation 2", 0, 3),
        ("evaluation 2", 1, 3),
        ("restored", 0, 3),
        ("evaluation 5", 0, 6),
    ]
    check_stopped_again_and_again(world, tmp_path, 2, inputs, stops)


def test_interleaved_pipeline_with_saves_in_the_background(world, inputs, tmp_path):
    options = [*inputs, *layout(pp=2, vpp=2), "checkpoint.async_save=true"]
    # The first comes after the poll of step 2, so the next one is in the validation of step 3.
    stops = [("save", 1, 3), ("evaluation 2", 0, 3), ("step 5", 0, 5)]
    check_stopped_again_and_again(world, tmp_path, 2, options, stops)
