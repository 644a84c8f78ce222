"""What `tools/pretrain.py` says to bad input: one line, exit status 2, and nothing left behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.integration.recipe import write_inputs

TOOL = Path(__file__).parents[2] / "tools" / "pretrain.py"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def run(folder, *arguments, **environment):
    command = [sys.executable, str(TOOL), f"run_dir={folder / 'run'}", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, cwd=folder
    )


def assert_refused(done, folder, message):
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2, done.stderr
    assert len(errors) == 1 and message in errors[0]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.preset=tiny", "training.train_iter=5"], "did you mean training.train_iters?"),
        (["model.preset=tiny", "training.global_batch_size=9", "training.micro_batch_size=2"],
         "training.global_batch_size=9 is not divisible by training.micro_batch_size=2"),
        (["--config", "absent.yaml"], "config file absent.yaml does not exist"),
    ],
)  # fmt: skip
def test_a_wrong_configuration_is_refused_at_once(tmp_path, arguments, message):
    assert_refused(run(tmp_path, *arguments), tmp_path, message)


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["parallel.tensor_model_parallel_size=2"], {}, "world size 1 is not a multiple of"),
        (["training.device=cuda"], {"CUDA_VISIBLE_DEVICES": ""}, "use training.device=cpu"),
        (["model.vocab_size=401"], {}, "unset model.vocab_size"),
        (["data.data_path=[absent]"], {}, "absent"),
        (["tokenizer.tokenizer_model=absent"], {}, "absent"),
    ],
    ids=["world size", "no GPU", "vocabulary", "no data", "no tokenizer"],
)
def test_a_run_that_cannot_start_is_refused(tmp_path, inputs, arguments, environment, message):
    assert_refused(run(tmp_path, *inputs, *arguments, **environment), tmp_path, message)


def test_the_resolved_configuration_is_printed_as_yaml(tmp_path, inputs):
    done = run(tmp_path, *inputs, "--print-config")
    assert done.returncode == 0, done.stderr
    shown = yaml.safe_load(done.stdout)
    assert shown["model"]["num_layers"] == 4
    assert shown["optimizer"]["min_lr"] == pytest.approx(5e-4)
    assert list(tmp_path.iterdir()) == []


def test_help_shows_an_example_and_every_section():
    done = subprocess.run([sys.executable, str(TOOL), "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "torchrun --nproc_per_node" in done.stdout
    sections = "model parallel data tokenizer optimizer training checkpoint logging"
    assert all(f"\n{name}: " in done.stdout for name in sections.split())
