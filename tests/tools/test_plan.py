import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "plan.py"
SEVEN = ["model.preset=7b", "training.global_batch_size=512", "training.train_iters=1000",
         "training.bf16=true", "--nodes", "1", "--gpu", "h100-80gb"]  # fmt: skip


def run(*arguments, cwd=None):
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd)


def answer(*arguments, cwd=None):
    done = run(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(*arguments, cwd=None):
    done = run(*arguments, cwd=cwd)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    return done.stderr


def test_the_days_come_first_then_layouts_then_refusals():
    prices = ["--price-per-gpu-hour", "2", "--price-per-kwh", "0.2", "--co2-per-kwh", "300"]
    said = answer(*SEVEN, *prices, "--tokens", "2e12", "--top", "3", "--start", "2027-01-01")
    first, hours = said.splitlines()[:2]
    assert first.startswith("2T tokens on 8 h100-80gb (1 x 8) take ")
    assert "if the run starts on 2027-01-01 and never stops" in first
    assert all(unit in hours for unit in ("GPU-hours", "MWh", "per GPU-hour", "per kWh", "t CO2"))
    assert said.index("tokens/s/GPU") < said.index("*the configuration's own: TP1 x PP1")
    assert "MFU with the causal half of attention" in said


def test_a_layout_that_breaks_a_rule_on_these_gpus_is_told_and_others_are_found():
    sixteen = ["parallel.tensor_model_parallel_size=16", "parallel.sequence_parallel=true"]
    shown = json.loads(answer(*SEVEN, *sixteen, "--json"))
    assert "world size 8 is not a multiple of TP x PP x CP" in shown["own"]["refusal"]
    assert shown["layouts"]


def test_a_layout_that_does_not_fit_is_shown_with_its_reason():
    shown = json.loads(answer(*SEVEN, "training.micro_batch_size=16", "--json"))
    assert shown["own"]["fits"] is False
    assert "most of it for activations" in shown["own"]["refusal"]
    assert shown["own"]["days"] > 0
    said = answer(*SEVEN, "training.micro_batch_size=16", "--top", "1")
    assert "does not fit: pipeline rank 0 needs" in said


def test_json_has_memory_and_step_by_part_and_adds_up():
    shown = json.loads(answer(*SEVEN, "--json"))
    assert shown["tokens"] == 1000 * 512 * 4096
    layout = shown["layouts"][0]
    assert layout["fits"] and layout["peak_gib"] <= shown["memory_limit_gib"]
    memory = layout["memory_gib"][layout["peak_rank"]]
    assert sum(memory.values()) == pytest.approx(layout["peak_gib"])
    rate = layout["step"]["tokens_per_second_per_gpu"] * shown["world_size"]
    assert layout["days"] == pytest.approx(shown["tokens"] / rate / 86_400)
    assert layout["days_low"] < layout["days"] < layout["days_high"]
    speeds = [one["step"]["tokens_per_second_per_gpu"] for one in shown["layouts"]]
    assert speeds == sorted(speeds, reverse=True)


def test_a_written_layout_is_what_a_run_takes_beside_its_file(tmp_path):
    said = answer(*SEVEN, "--explain", "tp=2 pp=2 vpp=2 mbs=1 recompute=full",
                  "--write-layout", "best.yaml", "--picture", "plan.png", cwd=tmp_path)  # fmt: skip
    assert said.startswith("TP2 x PP2 x CP1 x VPP2 x DP2 + SP, mbs 1, full")
    assert "GiB on each GPU of a pipeline rank" in said
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.yaml", "plan.png"]
    pretrain = [sys.executable, str(ROOT / "tools" / "pretrain.py"), "--config", "best.yaml",
                *SEVEN[:4], "--print-config"]  # fmt: skip
    done = subprocess.run(pretrain, check=True, capture_output=True, text=True, cwd=tmp_path)
    resolved = yaml.safe_load(done.stdout)
    assert resolved["parallel"]["virtual_pipeline_model_parallel_size"] == 2
    assert resolved["parallel"]["recompute_granularity"] == "full"
    assert resolved["training"]["micro_batch_size"] == 1


def test_a_micro_batch_that_is_not_tried_can_be_asked_for():
    assert "mbs 32, full" in answer(*SEVEN, "--explain", "tp=8 mbs=32 recompute=full")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpus", "8"], "which GPU?"),
        (["model.preset=7b", "--gpu", "h100"], "how many GPUs?"),
        (["model.preset=tiny", "--gpu", "h100", "--gpus", "8"], "give model.vocab_size=34000"),
        (["model.preset=7b", "--gpu", "h101", "--gpus", "8"], "gpu=h101 is not in the GPU table"),
        (["model.preset=7b", "--gpu", "h100", "--gpus", "12", "--nodes", "5"], "12 GPUs are not 5"),
        ([*SEVEN, "--explain", "tp=3"], "no layout has tp=3"),
        ([*SEVEN, "--explain", "zero=1"], "cannot read 'zero=1'"),
        ([*SEVEN, "--memory-margin", "1.5"], "memory margin 1.5"),
        ([*SEVEN, "--tokens", "0"], "tokens=0.0 must be more than 0"),
    ],
)
def test_bad_input_is_one_message_with_a_remedy(tmp_path, arguments, message):
    assert message in refused(*arguments, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_for_a_layout_that_cannot_run(tmp_path):
    arguments = [
        *SEVEN,
        "--explain",
        "tp=1 pp=1 mbs=16 recompute=none",
        "--write-layout",
        "no.yaml",
    ]
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "error: no layout to write into no.yaml: pipeline rank 0 needs" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_published_runs_are_held_against_the_planner():
    rows = json.loads(answer("--validate", "--json"))["rows"]
    assert all({"name", "calibrated", "error"} <= row.keys() for row in rows)
    assert "held out" in answer("--validate")


def test_help_shows_examples_and_the_runs_fields():
    said = answer("--help")
    assert "tools/plan.py --config run.yaml --gpus 256" in said
    assert "\nparallel: " in said
