"""The curation as job arrays of a real SLURM on this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_biollm.corpus.curation import curate
from tests import slurm
from tests.corpus.test_curation import config, digest, sources  # noqa: F401 (a fixture)

TOOL = Path(__file__).parents[2] / "tools" / "build_corpus.py"

pytestmark = pytest.mark.skipif(slurm.missing() is not None, reason=str(slurm.missing()))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm.Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


def test_a_killed_array_task_is_repeated_and_the_result_is_that_of_a_local_run(
    sources,  # noqa: F811
    tmp_path,
    cluster,
):
    local = config(sources, "local")
    curate(local)
    kill_once = (
        f'[ "$SLURM_ARRAY_TASK_ID" != 2 ] || [ -e {tmp_path}/killed ] || '
        f"{{ touch {tmp_path}/killed; kill -9 $$; }}"
    )
    command = [
        sys.executable, str(TOOL), f"paths=[{sources}]", f"output_dir={tmp_path}/slurm",
        "buckets=3", "task_mb=0.000001", "near_duplicates.enabled=false",
        "containment.enabled=false", "executor.executor=slurm", "executor.partition=main",
        "executor.time=5", "executor.mem_per_cpu_gb=1", f"executor.env_command='{kill_once}'",
    ]  # fmt: skip
    environment = os.environ | cluster.environment
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    first = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert first.returncode == 2, first.stdout + first.stderr
    assert "1 of 5 tasks of the stage extract failed" in first.stderr
    second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert second.returncode == 0, second.stdout + second.stderr
    assert digest(tmp_path / "slurm") == digest(local.output_dir)
