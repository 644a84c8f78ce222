"""A checkpoint of one layout continues in any other as if nothing had happened."""

import pytest

from tests.integration.recipe import layout, log_of, pretrain_here, rows, trained, write_inputs

SAVED_AT, LAST = 5, 15
EIGHT_RANKS = layout(tp=2, pp=2, sp="true")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def uninterrupted(world, inputs, tmp_path_factory):
    """TP2 x PP2 x DP2 with sequence parallelism, never stopped; checkpoints at 5, 10 and 15."""
    run_dir = tmp_path_factory.mktemp("uninterrupted")
    options = ["checkpoint.save_interval=5", f"training.train_iters={LAST}", f"run_dir={run_dir}"]
    assert world.run(8, pretrain_here, inputs + EIGHT_RANKS + options, joined=False) == [LAST] * 8
    return run_dir


@pytest.mark.parametrize(
    ("ranks", "degrees"),
    [
        (1, {}),
        (4, {"pp": 4}),
        (4, {"tp": 4}),
        (2, {"cp": 2}),
        (2, {"pp": 2, "vpp": 2}),
        (2, {}),
        (8, {"tp": 2, "pp": 2, "sp": "true"}),
    ],
    ids=["one process", "PP4", "TP4", "CP2", "PP2 x VPP2", "DP2", "the same"],
)
def test_it_continues_in_another_layout(world, inputs, uninterrupted, tmp_path, ranks, degrees):
    source = uninterrupted / "checkpoints" / f"step_{SAVED_AT:08d}"
    options = [
        f"checkpoint.load={source}",
        "checkpoint.save_interval=0",
        f"training.train_iters={LAST}",
        f"run_dir={tmp_path}",
    ]
    world.run(ranks, pretrain_here, inputs + layout(**degrees) + options, joined=False)
    continued, expected = rows(tmp_path), rows(uninterrupted)
    assert sorted(continued) == list(range(SAVED_AT + 1, LAST + 1))
    for step, row in continued.items():
        assert row["loss"] == pytest.approx(expected[step]["loss"], rel=1e-5)
        assert row["batch_hash"] == expected[step]["batch_hash"]
        assert row["consumed_samples"] == expected[step]["consumed_samples"]
    if "sp" in degrees:
        assert trained(tmp_path) == trained(uninterrupted, first=SAVED_AT + 1)
    assert f"restored {source}" in log_of(tmp_path)
