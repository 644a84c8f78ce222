"""A rank that is stopped does not hold up a run: it is named, all start again, nothing is lost."""

import re
from pathlib import Path

import pytest

from megatron_biollm.launch.heartbeat import read_beats
from megatron_biollm.launch.status import read_status
from tests.integration.recipe import layout, log_of, pretrain_here, torchrun, trained, write_inputs

DIE_AT = Path(__file__).with_name("die_at.py")
OPTIONS = ["training.train_iters=6", "checkpoint.save_interval=2"]
WATCH = ["watch.heartbeat_seconds=0.5", "watch.hang_timeout_minutes=0.1"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs")) + OPTIONS


def check_stopped_rank_is_named(world, inputs, tmp_path, processes, moment, rank):
    alone, hung = tmp_path / "alone", tmp_path / "hung"
    world.run(processes, pretrain_here, [*inputs, f"run_dir={alone}"], joined=False)
    fault = {"DIE_AT": moment, "DIE_RANK": str(rank), "DIE_SIGNAL": "SIGSTOP"}
    options = [*inputs, *WATCH, f"run_dir={hung}"]
    done = torchrun(processes, DIE_AT, options, max_restarts=1, **fault)
    assert done.returncode == 0, done.stderr[-5000:]
    [report] = (hung / "logs").glob("hang_*.txt")
    named = report.read_text().splitlines()[2]
    assert named.startswith(f"rank {rank} (pid ") and "is stopped (SIGSTOP)" in named
    stack = report.read_text().split(f"stack of rank {rank} ")[1].split("\n\n")[0]
    assert "die_at.py" in stack
    assert "the run hangs" in log_of(hung, min({0, 1} - {rank}))
    assert trained(hung) == trained(alone)
    assert read_status(hung).state == "finished"
    assert {beat.step for beat in read_beats(hung, processes).values()} == {6}
    return named


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")
def test_a_stopped_rank_is_named_and_the_run_starts_again(world, inputs, tmp_path):
    named = check_stopped_rank_is_named(world, inputs, tmp_path, 2, "step 3", 1)
    # As the last beat before the stop has it.
    assert re.search(r"last seen after step [0-3], in phase '[a-z -]+' for", named)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")
def test_rank_0_of_a_pipeline_that_stops_is_named_by_another(world, inputs, tmp_path):
    options = [*inputs, *layout(tp=2, pp=2, sp="true")]
    check_stopped_rank_is_named(world, options, tmp_path, 4, "step 5", 0)
