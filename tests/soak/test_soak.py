"""A short soak: whatever befalls the run, it ends with the losses of its undisturbed twin."""

import contextlib
import os

import pytest

from tests import slurm
from tests.soak.harness import Settings, Soak
from tests.soak.plan import make_plan
from tests.soak.table import is_good, make_report, markdown

SEED = 4


@pytest.mark.slow
def test_a_run_survives_four_faults_and_equals_its_undisturbed_twin(tmp_path):
    kinds = ("kill", "sigterm", "flip", "disk_full" if os.geteuid() == 0 else "delete")
    (plan,) = make_plan(SEED, len(kinds), len(kinds), kinds)
    with contextlib.ExitStack() as stack:
        cluster = None
        if slurm.missing() is None:
            cluster = stack.enter_context(slurm.Cluster(tmp_path / "slurm"))
        result = Soak(tmp_path / "runs", cluster, Settings()).run(plan)
    report = make_report([result])
    assert is_good(report), markdown(report)
    assert {fault.kind for fault in result.faults} == set(kinds)
