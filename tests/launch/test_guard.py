import subprocess
import sys
from pathlib import Path

import pytest

from megatron_biollm.launch import lock
from megatron_biollm.launch.attempt import Attempt, Ended, Limits
from megatron_biollm.launch.guard import after_end, before_start, clear, outlook
from megatron_biollm.launch.history import read_history
from megatron_biollm.launch.status import RunStatus
from tests.launch.test_history import make_checkpoint

LIMITS = Limits(max_starts=2, backoff_seconds=60, max_excluded=1, max_restarts=1)
USABLE = ("n1", "n2", "n3")


def attempt(run_dir, name="1_0", nodes=("n1", "n2")):
    return Attempt(run_dir, name, 100, name.split("_")[0], nodes, USABLE)


def start(run_dir, name="1_0"):
    return before_start(attempt(run_dir, name), LIMITS, {name.split("_")[0]})


def end(run_dir, name="1_0", **how):
    return after_end(attempt(run_dir, name), Ended(**how), LIMITS)


def fail(run_dir, name, **nodes):
    """An attempt that fails, with the exit time of each node."""
    assert start(run_dir, name).action == "start"
    logs = attempt(run_dir, name).logs
    logs.mkdir(parents=True)
    for node, when in nodes.items():
        (logs / f"node_{node}.exit").write_text(f"1 {when}")
    return end(run_dir, name, exit_status=1)


def test_a_run_starts_and_is_requeued_when_its_time_is_up(tmp_path):
    assert start(tmp_path).action == "start"
    make_checkpoint(tmp_path, 50)
    decision = end(tmp_path, exit_status=0, signalled=True)
    assert decision.line() == "requeue 0" and "step 50" in decision.reason
    assert lock.holder_of(tmp_path) is None
    assert "after step 50" in start(tmp_path, "1_1").reason


def test_a_finished_run_ends_the_chain_and_starts_no_more(tmp_path):
    start(tmp_path)
    make_checkpoint(tmp_path, 100)
    assert end(tmp_path, exit_status=0).action == "stop"
    assert start(tmp_path, "2_0").action == "stop"
    longer = before_start(Attempt(tmp_path, "3_0", 200, "3"), LIMITS, {"3"})
    assert longer.action == "start"


def test_failures_wait_longer_and_longer_and_then_stop_the_run(tmp_path):
    first = fail(tmp_path, "1_0")
    assert (first.action, first.delay_s) == ("requeue", 60)
    last = fail(tmp_path, "1_1")
    assert last.action == "refuse"
    for text in ("2 starts in a row", "1_0, 1_1", "the beginning", "logs", "guard", "--clear"):
        assert text in last.reason
    assert start(tmp_path, "1_2").action == "refuse"
    clear(tmp_path, "mended")
    assert start(tmp_path, "2_0").action == "start"


def test_progress_between_failures_keeps_the_run_going(tmp_path):
    for restart in range(5):
        make_checkpoint(tmp_path, restart + 1)
        assert fail(tmp_path, f"1_{restart}").action == "requeue"


def test_a_start_that_was_never_ended_counts_too(tmp_path):
    assert start(tmp_path, "1_0").action == "start"  # and the node died
    assert start(tmp_path, "1_1").action == "start"
    assert start(tmp_path, "1_2").action == "refuse"


def test_a_failure_is_repeated_in_the_allocation_while_that_is_worth_it(tmp_path):
    start(tmp_path)
    assert end(tmp_path, exit_status=1, seconds_left=3600).action == "again"
    clear(tmp_path, "")
    start(tmp_path, "1_0_1")
    assert end(tmp_path, "1_0_1", exit_status=1, seconds_left=3600).action == "requeue"
    clear(tmp_path, "")
    start(tmp_path)
    assert end(tmp_path, exit_status=1, seconds_left=-5).action == "requeue"


def test_what_the_trainer_refuses_is_not_tried_again_until_cleared(tmp_path):
    start(tmp_path)
    RunStatus("refused", 0, 100, reason="no corpus").write(tmp_path)
    decision = end(tmp_path, exit_status=1)
    assert decision.action == "refuse" and "no corpus" in decision.reason
    clear(tmp_path, "there it is")
    assert start(tmp_path, "2_0").action == "start"


def test_a_run_that_was_asked_to_stop_stays_stopped_for_jobs_but_not_for_people(tmp_path):
    start(tmp_path)
    RunStatus("stopped", 7, 100, 7, "run_dir/stop").write(tmp_path)
    decision = end(tmp_path, exit_status=0)
    assert decision.action == "stop" and "run_dir/stop" in decision.reason
    assert start(tmp_path, "2_0").action == "refuse"
    assert before_start(Attempt(tmp_path, "torchrun-x_0", 100), LIMITS).action == "start"


def test_a_stop_file_before_the_start_is_obeyed_unless_an_earlier_job_left_it(tmp_path):
    (tmp_path / "stop").write_text("time limit of job 1\n")
    assert start(tmp_path).action == "start"
    assert not (tmp_path / "stop").exists()
    end(tmp_path, exit_status=0, signalled=True)
    (tmp_path / "stop").touch()
    assert start(tmp_path, "1_1").action == "stop"
    assert not (tmp_path / "stop").exists()


@pytest.mark.parametrize(
    ("fate", "action"), [("cancelled", "stop"), ("requeued", "leave"), ("timeout", "requeue")]
)
def test_a_job_that_slurm_has_ended(tmp_path, fate, action):
    start(tmp_path)
    assert end(tmp_path, exit_status=143, fate=fate).action == action


def test_a_blamed_node_is_excluded_and_a_start_on_it_moves_away(tmp_path):
    assert fail(tmp_path, "1_0", n2=10.0, n1=99.0).exclude == ("n2",)
    decision = start(tmp_path, "1_1")
    assert (decision.action, decision.exclude) == ("requeue", ("n2",))
    assert "torchrun ended first" in decision.reason
    assert lock.holder_of(tmp_path) is None


def test_another_job_that_trains_the_run_is_named(tmp_path):
    start(tmp_path, "1_0")
    decision = before_start(attempt(tmp_path, "2_0"), LIMITS, {"1", "2"})
    assert decision.action == "refuse" and "job 1" in decision.reason
    assert len(read_history(tmp_path).of_kind("start")) == 1


def test_the_outlook_changes_nothing(tmp_path):
    fail(tmp_path, "1_0")
    (tmp_path / "stop").touch()
    before = sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    assert outlook(tmp_path, LIMITS).action == "stop"
    assert sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*")) == before


def test_the_batch_shell_is_spared_torch():
    tool = Path(__file__).parents[2] / "tools" / "launch.py"
    program = f"import runpy, sys; runpy.run_path({str(tool)!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
