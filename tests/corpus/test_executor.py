import os
import signal
import sys
import time

import pytest
from datatrove.pipeline.base import PipelineStep

from megatron_biollm.config import UserError
from megatron_biollm.corpus.config import ExecutorConfig
from megatron_biollm.corpus.executor import Stage, StageFailed, run_stages
from megatron_biollm.corpus.local_executor import RestartTask


class Work(PipelineStep):
    """Notes each task it runs; misbehaves where a file bids it."""

    name = type = "test"

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.attempts = 0

    def run(self, data=None, rank=0, world_size=1):
        bid = self.folder / f"{rank}.bid"
        what = bid.read_text() if bid.exists() else ""
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "secret" and "TEST_SECRET" in os.environ:
            raise UserError("the secret is still there")
        if what == "fail":
            note = " ".join(["Mary Johnson", "has a cold"])
            raise UserError("the disk is full" if note else "")
        self.attempts += 1
        if what == "restart" and self.attempts == 1:
            raise RestartTask("once more")
        with (self.folder / "done").open("a") as file:
            file.write(f"{rank}\n")
        yield from ()


def stage(folder, tasks=4):
    return Stage("work", tasks, [Work(folder)], folder / "log")


def run(folder, **kwargs):
    return run_stages([stage(folder)], ExecutorConfig(workers=2, **kwargs), wait_for_jobs=True)


def done(folder):
    return sorted((folder / "done").read_text().split())


def test_every_task_runs_once_and_not_again(tmp_path):
    assert run(tmp_path)
    assert run(tmp_path)
    assert done(tmp_path) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(("bid", "reason"), [("kill", "SIGKILL"), ("fail", "the disk is full")])
def test_a_task_that_dies_costs_its_own_work_only(tmp_path, bid, reason):
    (tmp_path / "2.bid").write_text(bid)
    started = time.monotonic()
    with pytest.raises(StageFailed, match=rf"1 of 4 tasks.*work failed(.|\n)*task 2: .*{reason}"):
        run(tmp_path)
    assert time.monotonic() - started < 30
    assert done(tmp_path) == ["0", "1", "3"]
    (tmp_path / "2.bid").unlink()
    assert run(tmp_path)
    assert done(tmp_path) == ["0", "1", "2", "3"]


def test_the_log_of_a_failed_task_tells_where_and_not_what_the_text_was(tmp_path):
    (tmp_path / "2.bid").write_text("fail")
    with pytest.raises(StageFailed):
        run(tmp_path)
    log = (tmp_path / "log" / "logs" / "task_00002.log").read_text()
    assert "the disk is full" in log and "test_executor.py" in log
    assert "Mary Johnson has a cold" not in log


def test_a_stage_behind_a_failed_one_is_not_started(tmp_path):
    (tmp_path / "0.bid").write_text("fail")
    (tmp_path / "later").mkdir()
    stages = [stage(tmp_path), stage(tmp_path / "later")]
    with pytest.raises(StageFailed):
        run_stages(stages, ExecutorConfig(workers=2), wait_for_jobs=True)
    assert not (tmp_path / "later" / "done").exists()


def test_a_step_may_ask_for_a_new_start(tmp_path):
    (tmp_path / "1.bid").write_text("restart")
    assert run(tmp_path)
    assert done(tmp_path) == ["0", "1", "2", "3"]


def test_tasks_see_the_environment_as_it_is_now(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.bid").write_text("secret")
    monkeypatch.setenv("TEST_SECRET", "x")
    with pytest.raises(StageFailed, match="still there"):
        run(tmp_path / "one")
    monkeypatch.delenv("TEST_SECRET")
    assert run(tmp_path / "two")


def test_what_is_missing_for_an_executor_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no sbatch on this machine"):
        run(tmp_path, executor="slurm", partition="debug")
    with pytest.raises(UserError, match="slurm without executor.partition"):
        ExecutorConfig(executor="slurm")
    with pytest.raises(UserError, match="'cloud'; give one of local, slurm, ray"):
        ExecutorConfig(executor="cloud")


@pytest.mark.filterwarnings("default")
def test_ray_runs_the_same_tasks_and_names_the_one_that_fails(tmp_path):
    ray = pytest.importorskip("ray", reason="ray is not installed")
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": path})
    try:
        (tmp_path / "2.bid").write_text("fail")
        with pytest.raises(StageFailed, match=r"1 of 4 tasks(.|\n)*task 2: the disk is full"):
            run(tmp_path, executor="ray", mem_per_cpu_gb=1)
        (tmp_path / "2.bid").unlink()
        assert run(tmp_path, executor="ray", mem_per_cpu_gb=1)
        assert done(tmp_path) == ["0", "1", "2", "3"]
    finally:
        ray.shutdown()
