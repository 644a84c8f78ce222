"""What `tools/launch.py` writes and says; jobs that run: tests/launch/test_slurm_jobs.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from megatron_biollm.launch.status import RunStatus

TOOL = Path(__file__).parents[2] / "tools" / "launch.py"
RUN = ["model.preset=tiny", "data.data_path=[x]", "training.train_iters=50",
       "optimizer.lr_warmup_iters=5", "parallel.tensor_model_parallel_size=2"]  # fmt: skip


def launch(folder, *arguments, **environment):
    (folder / "run.yaml").write_text(f"run_dir: {folder}/run\n")
    return subprocess.run(
        [sys.executable, str(TOOL), *arguments],
        capture_output=True, text=True, env=os.environ | environment, cwd=folder, timeout=120,
    )  # fmt: skip


def sbatch(folder, *arguments, **environment):
    return launch(folder, "sbatch", "--config", "run.yaml", *RUN, *arguments, **environment)


def test_a_job_is_written_with_the_run_as_it_is_now(tmp_path):
    (tmp_path / "site.yaml").write_text("slurm: {nodes: 2, partition: gpu}\n")
    done = sbatch(tmp_path, "--slurm", "site.yaml", "slurm.gpus_per_node=4", "--output", "x.sbatch")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "sbatch x.sbatch\n"
    script = (tmp_path / "x.sbatch").read_text()
    assert "#SBATCH --nodes=2" in script and "#SBATCH --partition=gpu" in script
    frozen = yaml.safe_load((tmp_path / "run" / "launch" / "run.yaml").read_text())
    assert frozen["parallel"]["tensor_model_parallel_size"] == 2
    assert frozen["training"]["train_iters"] == 50
    assert (tmp_path / "run" / "logs" / "slurm").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["slurm.nodes=1", "slurm.gpus_per_node=3"], "world size 3 is not a multiple of TP"),
        (["slurm.time=5:00"], "leaves no time to train before the warning"),
        (["slurm.node=2"], "did you mean slurm.nodes?"),
        (["training.train_iter=2"], "did you mean training.train_iters?"),
        (["slurm.gpus_per_node=0", "slurm.processes_per_node=2", "training.device=cuda"],
         "training.device=cuda needs GPUs"),
        (["data.data_path=[]"], "data"),
        (["--submit"], "sbatch is not on this machine"),
    ],
)  # fmt: skip
def test_a_job_that_cannot_work_is_refused_in_one_line(tmp_path, arguments, message):
    done = sbatch(tmp_path, *arguments, PATH="/nowhere")
    assert done.returncode == 2 and done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0], done.stderr
    assert "Traceback" not in done.stderr
    if arguments != ["--submit"]:
        assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_the_guard_tells_people_whether_a_run_may_start(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    done = launch(tmp_path, "guard", "--run-dir", "run")
    assert done.returncode == 0 and done.stdout.startswith("start: may start")
    (run / "launch.jsonl").write_text('{"event": "stop", "reason": "no corpus"}\n')
    done = launch(tmp_path, "guard", "--run-dir", "run")
    assert done.returncode == 1 and "refuse: no corpus" in done.stdout
    assert launch(tmp_path, "guard", "--run-dir", "run", "--clear").returncode == 0


def test_the_status_page_is_text_or_json(tmp_path):
    run = tmp_path / "run"
    RunStatus("stopped", 7, 50, 7, "SIGUSR1").write(run)
    assert "stopped: SIGUSR1, step 7/50" in launch(tmp_path, "status", "run").stdout
    shown = json.loads(launch(tmp_path, "status", "run", "--json").stdout)
    assert shown["status"]["step"] == 7
    done = launch(tmp_path, "status", "absent")
    assert done.returncode == 2 and "absent is no folder" in done.stderr


def test_torchrun_prints_one_command_per_host(tmp_path):
    done = launch(
        tmp_path,
        "torchrun",
        "--config",
        "run.yaml",
        "--hosts",
        "a,b",
        "--nproc-per-node",
        "2",
        *RUN,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "# on a" and lines[2] == "# on b"
    assert "--node-rank=1 --master-addr=a" in lines[3] and "--nproc-per-node=2" in lines[3]
    assert all(word in lines[3] for word in RUN[:1])


def test_hosts_that_do_not_fit_the_layout_are_refused(tmp_path):
    done = launch(tmp_path, "torchrun", "--config", "run.yaml", "--hosts", "a,b,c", *RUN)
    assert done.returncode == 2 and "world size 3" in done.stderr
    done = launch(tmp_path, "torchrun", "--config", "run.yaml", "--node-rank=2", *RUN)
    assert done.returncode == 2 and "must be from 0 to 0" in done.stderr
