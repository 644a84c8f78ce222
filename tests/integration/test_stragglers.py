"""A rank that is slower than the others is named in the log, with its host and the part."""

import os
import socket
import time
from unittest import mock

import pytest

from megatron_biollm.rows import read_rows
from tests.integration.recipe import log_of, pretrain_here, write_inputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def pretrain_slowed(overrides: list[str], rank: int) -> int:
    """The recipe, in which every micro-batch costs `rank` half a second of computing more."""
    from megatron_biollm.training import step

    forward = step.forward_step

    def slowed(*args, **kwargs):
        until = time.thread_time() + 0.5
        while time.thread_time() < until:
            pass
        return forward(*args, **kwargs)

    slow = os.environ["RANK"] == str(rank)
    with mock.patch.object(step, "forward_step", slowed if slow else forward):
        return pretrain_here(overrides)


def test_a_rank_that_computes_longer_is_named(world, inputs, tmp_path):
    options = [
        *inputs,
        f"run_dir={tmp_path}",
        "training.global_batch_size=6",
        "training.train_iters=4",
        "watch.straggler_interval=2",
    ]
    world.run(3, pretrain_slowed, options, 2, joined=False)
    assert f"rank 2 on {socket.gethostname()} is slow in compute" in log_of(tmp_path)
    rows = read_rows(tmp_path / "logs" / "stragglers.jsonl")
    assert [(row["step"], row["steps"]) for row in rows] == [(2, 1), (4, 2)]
    for row in rows:
        assert row["compute"]["rank"] == 2
        assert "compute" in {slow["part"] for slow in row["slow"] if slow["rank"] == 2}
        assert row["ranks"][2]["compute"] > 0.5
        # The others wait for it.
        assert row["ranks"][0]["wait"] > row["ranks"][2]["wait"]
