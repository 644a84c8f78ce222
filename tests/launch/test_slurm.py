import re
import subprocess

import pytest

from megatron_biollm.launch.slurm import Program, batch_script, job_name
from megatron_biollm.launch.slurm_config import SlurmConfig

PROGRAM = Program(
    ("/repo/tools/pretrain.py", "--config", "/runs/a b/launch/run.yaml"),
    "/runs/a b",
    1000,
    "/repo/tools/launch.py",
    "/home/me/$x",
)


def head(script):
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if "#SBATCH" in line]


def value(script, name, tmp_path):
    """A bash array of the script, as bash reads it."""
    settings = script[: script.index("# ---- From here on")]
    settings = re.sub(r"^cd .*", f"cd {tmp_path}", settings, flags=re.M)
    program = f'{settings}\nprintf "%s\\n" "${{{name}[@]}}"'
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_job_on_gpu_nodes(tmp_path):
    config = SlurmConfig(nodes=32, partition="gpu", account="bio", time="12:00:00", gpu_type="h100")
    script = batch_script(config, PROGRAM)
    assert head(script) == [
        f"--job-name={job_name('/runs/a b')}", "--dependency=singleton", "--nodes=32",
        "--ntasks-per-node=1", "--gpus-per-node=h100:8", "--exclusive", "--mem=0",
        "--time=12:00:00", "--signal=B:USR1@600", "--requeue", "--open-mode=append",
        "--output=/runs/a b/logs/slurm/job_%j.log", "--partition=gpu", "--account=bio",
    ]  # fmt: skip
    torchrun = value(script, "torchrun", tmp_path)
    assert "--nnodes=32" in torchrun and "--nproc-per-node=8" in torchrun
    assert "TORCH_NCCL_DUMP_ON_TIMEOUT=1" in script


def test_a_job_on_nodes_without_gpus_says_nothing_of_nccl(tmp_path):
    script = batch_script(SlurmConfig(gpus_per_node=0, processes_per_node=2), PROGRAM)
    assert not [line for line in head(script) if "gpu" in line or "gres" in line]
    assert "NCCL_" not in script[: script.index("# ---- From here on")]
    assert "--nproc-per-node=2" in value(script, "torchrun", tmp_path)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"gpu_option": "gres", "gpus_per_node": 4}, "--gres=gpu:4"),
        ({"exclude": ["n1", "n2"]}, "--exclude=n1,n2"),
        ({"requeue": False}, "--no-requeue"),
        ({"sbatch_options": ["--switches=1"]}, "--switches=1"),
        ({"cpus_per_node": 64}, "--cpus-per-task=64"),
    ],
)
def test_options_stand_in_the_head(options, line):
    assert line in head(batch_script(SlurmConfig(**options), PROGRAM))


def test_words_reach_bash_as_they_were_given(tmp_path):
    config = SlurmConfig(container="apptainer exec 'my image.sif'", socket_ifname="ib0")
    script = batch_script(config, PROGRAM)
    assert value(script, "program", tmp_path) == list(PROGRAM.command)
    assert value(script, "torchrun", tmp_path)[:4] == [
        "apptainer",
        "exec",
        "my image.sif",
        "python",
    ]
    assert value(script, "guard", tmp_path)[-2:] == [PROGRAM.launcher, "guard"]
    assert "cd '/home/me/$x' || exit 1" in script
    assert "export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0" in script


def test_a_container_of_srun_holds_the_guard_too(tmp_path):
    config = SlurmConfig(srun_options=["--container-image=nvcr.io#nvidia/pytorch:25.09-py3"])
    script = batch_script(config, PROGRAM)
    step = ["srun", "--nodes=1", "--ntasks=1", "--overlap", *config.srun_options, "python"]
    assert value(script, "guard", tmp_path)[:6] == step


def test_the_script_is_sound_bash_and_narrow_enough_to_read():
    script = batch_script(SlurmConfig(environment=["module load cuda"]), PROGRAM)
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert done.returncode == 0 and done.stderr == ""
    assert max(len(line) for line in script.splitlines()) <= 100


def test_a_relative_run_folder_lies_below_the_folder_of_submission(tmp_path):
    script = batch_script(SlurmConfig(), Program(("p.py",), "runs/x", 1, "tools/launch.py"))
    assert 'run_dir="$PWD"/runs/x' in script and "\ncd " not in script


def test_two_runs_have_two_job_names():
    assert job_name("/a/run") != job_name("/b/run")
    assert job_name("/a/run").startswith("run-")
