"""One page, an exit status, JSON: what the check of a run says of a good and of bad runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_biollm.recipes.preflight import checkpoint_bytes
from megatron_biollm.recipes.run_config import load_run_config
from tests.integration.recipe import layout, torchrun, write_inputs

TOOL = Path(__file__).parents[2] / "tools" / "preflight.py"
SMALL = ["--message-mb", "0.1", "--write-mb", "1"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return [*write_inputs(tmp_path_factory.mktemp("inputs")), "training.train_iters=4"]


def run(tmp_path, *arguments):
    command = [sys.executable, str(TOOL), *SMALL, f"run_dir={tmp_path / 'run'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ)


def status_of(result):
    return {finding["check"]: finding["status"] for finding in result["findings"]}


def test_a_good_run_is_ready_and_nothing_is_left_in_its_folder(inputs, tmp_path):
    done = run(tmp_path, *inputs)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("ready:")
    assert list((tmp_path / "run").iterdir()) == []


def test_the_layout_is_checked_for_the_run_s_world_and_not_for_this_process(inputs, tmp_path):
    wrong = run(tmp_path, *inputs, "--world-size", "6", "--json", *layout(tp=4))
    result = json.loads(wrong.stdout)
    assert wrong.returncode == 1 and status_of(result)["layout"] == "FAIL"
    assert "world size 6 is not a multiple" in result["findings"][0]["text"]
    right = run(tmp_path, *inputs, "--world-size", "8", *layout(tp=4))
    assert right.returncode == 0 and "DP2 on 8 ranks" in right.stdout


def test_a_missing_corpus_and_an_unwritable_folder_fail_with_their_names(inputs, tmp_path):
    done = run(tmp_path, *inputs, "data.data_path=[absent]", "--json")
    text = next(f["text"] for f in json.loads(done.stdout)["findings"] if f["check"] == "inputs")
    assert done.returncode == 1 and "absent.idx does not exist" in text
    (tmp_path / "file").write_text("")
    done = run(tmp_path, *inputs, f"run_dir={tmp_path / 'file' / 'run'}")
    assert done.returncode == 1 and "cannot be written" in done.stdout


def test_ranks_measure_their_groups_and_name_the_slowest_pair(inputs, tmp_path):
    options = [*SMALL, "--json", f"run_dir={tmp_path / 'run'}", *layout(tp=2, pp=2)]
    done = torchrun(4, TOOL, [*inputs, *options])
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    statuses = status_of(result)
    assert result["world_size"] == 4 and statuses["shared folder"] == "pass"
    assert statuses["bandwidth cp"] == statuses["bandwidth dp"] == "skip"
    tp = next(f["text"] for f in result["findings"] if f["check"] == "bandwidth tp")
    assert tp.startswith("2 ranks: all-reduce") and "slowest pair rank" in tp


def test_the_checkpoint_forecast_is_what_a_checkpoint_takes(inputs, tmp_path):
    overrides = [*inputs, f"run_dir={tmp_path / 'run'}", "model.hidden_size=256"]
    done = torchrun(1, TOOL.with_name("pretrain.py"), overrides)
    assert done.returncode == 0, done.stderr[-2000:]
    config = load_run_config(None, [*overrides, "model.vocab_size=400"])
    written = sum(f.stat().st_size for f in (config.checkpoints / "step_00000004").glob("*.distcp"))
    assert written == pytest.approx(checkpoint_bytes(config), rel=0.05)
