"""The benchmark of start-up, and the list of what no run imports before its first step."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.recipes.benchmarks.startup import (
    DEFERRED,
    StartupBenchmark,
    benchmark_startup,
)
from megatron_biollm.recipes.benchmarks.startup_tables import table
from tests.integration.recipe import write_inputs

ROOT = Path(__file__).parents[3]
# Runs a tool, and says which of the named modules it has imported.
IMPORTED = """
import json, runpy, sys
watched, sys.argv = json.loads(sys.argv[1]), sys.argv[2:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps([name for name in watched if name in sys.modules]))
"""
SLOW = ["torch", "transformers", "megatron.core", "matplotlib", "scipy", "pandas", "sklearn"]


def imported(watched, *command):
    said = subprocess.run(
        [sys.executable, "-c", IMPORTED, json.dumps(list(watched)), *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout.splitlines()[-1])


def test_a_run_imports_none_of_the_deferred_modules(tmp_path):
    overrides = write_inputs(tmp_path)
    steps = ["training.train_iters=2", "optimizer.lr_warmup_iters=1", f"run_dir={tmp_path / 'run'}"]
    tool = ROOT / "tools/pretrain.py"
    assert imported(DEFERRED, tool, *overrides, *steps) == []
    assert (tmp_path / "run/logs/startup.json").is_file()


# Curation's settings lie beside its stages, which are datatrove's.
TOOLS = sorted({path.name for path in (ROOT / "tools").glob("*.py")} - {"build_corpus.py"})


@pytest.mark.parametrize("tool", TOOLS)
def test_help_needs_no_slow_module(tool):
    assert imported(SLOW, ROOT / "tools" / tool, "--help") == []


def test_no_launch_is_no_measurement():
    model = ModelConfig(preset="tiny", vocab_size=2000)
    with pytest.raises(UserError, match="repeats=0 must be at least 1"):
        StartupBenchmark(model=model, repeats=0)


@pytest.mark.slow
def test_a_launch_of_every_side(tmp_path):
    model = ModelConfig(preset="tiny", vocab_size=600)
    report = benchmark_startup(
        StartupBenchmark(model=model, repeats=1, processes=[1, 2], scratch=str(tmp_path))
    )
    assert [row["name"][-11:] for row in report["rows"]] == [", 1 process", "2 processes"]
    for row in report["rows"]:
        assert row["ratio"] == row["ours"] / row["peer"]
    for side in report["sides"]:
        assert {"imports", "tokenizer", "data", "first step", "total"} <= side["phases"].keys()
    assert {row["name"] for row in report["deferred"]} <= DEFERRED.keys() | {
        "collection of garbage during imports"
    }
    assert "| nothing deferred |" in table(report)
    assert list(tmp_path.iterdir()) == []
