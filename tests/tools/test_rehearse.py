"""The tool's page, its exit status, and the shipped 70B run from end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "examples/pretrain_70b/run.yaml"


def run_tool(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "tools/rehearse.py", "--config", str(SHIPPED), *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_the_shipped_70b_run_passes_and_agrees_with_the_planner():
    arguments = ("--world-size", "256", "--gpu", "h100-80gb", "--json", "model.vocab_size=34000")
    done = run_tool(*arguments)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report["ranks"]) == 4  # one of each pipeline rank
    for row in report["ranks"]:
        assert row["peak"]["total"] == pytest.approx(row["planner_bytes"], rel=0.1)
        assert row["steady"]
    assert report["checkpoint"]["reshardable"]["bytes"] == pytest.approx(
        14 * report["parameters"], rel=0.001
    )


@pytest.mark.slow
def test_the_70b_run_without_tensor_parallelism_is_broken_and_says_so():
    done = run_tool(
        *("--world-size", "256", "--gpu", "h100-80gb", "--no-checkpoint", "--ranks", "0"),
        "model.vocab_size=34000",
        "training.micro_batch_size=1",
        "parallel.tensor_model_parallel_size=1",
        "parallel.sequence_parallel=false",
    )
    assert done.returncode == 1
    assert "BROKEN: rank 0 (tp0 cp0 dp0 pp0): it needs " in done.stdout
