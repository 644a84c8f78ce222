"""Steps that are not healthy are skipped, gone back over, or end the run, as the policy says."""

import json
import re
from unittest import mock

import pytest

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.store import CheckpointStore, read_state
from megatron_biollm.recipes.incidents import read_incidents
from megatron_biollm.recipes.ledger import check_ledger
from tests.integration.poison import pretrain_poisoned
from tests.integration.recipe import layout, pretrain_here, rows, trained, write_inputs

STEPS, BATCH = 12, 16
OPTIONS = [
    f"training.train_iters={STEPS}",
    "checkpoint.save_interval=3",
    "checkpoint.keep_last=0",
    "stability.window=8",
    # Twelve steps from the start fall steeply; the spikes here are ten times as high.
    "stability.sigmas=20",
    "stability.rewind_margin=2",
    "stability.jump_before=1",
    "stability.jump_after=1",
]
LAYOUTS = {
    "DP2": (2, ["parallel.overlap_grad_reduce=true", "parallel.overlap_param_gather=true"]),
    "TP2xPP2": (4, layout(tp=2, pp=2)),
}
layouts = pytest.mark.parametrize("where", ["DP2", "TP2xPP2"])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs")) + OPTIONS


@pytest.fixture(scope="module")
def healthy(world, inputs, tmp_path_factory):
    """What an undisturbed run of each layout trained on, step by step."""
    found = {}

    def run(where):
        if where not in found:
            run_dir = tmp_path_factory.mktemp("healthy") / "run"
            size, options = LAYOUTS[where]
            options = [*inputs, *options, f"run_dir={run_dir}"]
            world.run(size, pretrain_here, options, joined=False)
            assert not read_incidents(run_dir)
            found[where] = trained(run_dir)
        return found[where]

    return run


def run_poisoned(world, where, inputs, run_dir, what, when, rank=0, **options):
    size, degrees = LAYOUTS[where]
    overrides = [*inputs, *degrees, f"run_dir={run_dir}"]
    overrides += [f"stability.{name}={value}" for name, value in options.items()]
    answers = world.run(size, pretrain_poisoned, overrides, what, when, rank, joined=False)
    assert len(set(answers)) == 1, answers
    return answers[0]


@layouts
def test_an_update_with_a_nan_is_skipped_and_its_samples_are_listed(
    world, inputs, healthy, tmp_path, where
):
    end = run_poisoned(world, where, inputs, tmp_path, "gradient", "5", rank=1)
    assert end == STEPS
    before = healthy(where)
    after, found = trained(tmp_path), rows(tmp_path)
    assert [after[step] for step in range(1, 5)] == [before[step] for step in range(1, 5)]
    # The forward pass of the poisoned step was that of the healthy run; the norm was not.
    assert (after[5][0], after[5][1], after[5][2]) == (before[5][0], None, before[5][2])
    assert [step for step in found if found[step].get("skipped")] == [5]
    assert [after[step][2] for step in after] == [before[step][2] for step in before]
    assert after[6][0] == pytest.approx(before[6][0], rel=0.5) and after[6][0] != before[6][0]
    (incident,) = read_incidents(tmp_path)
    assert (incident["step"], incident["what"], incident["value"]) == (5, "grad_norm", "nan")
    assert incident["action"] == "skip" and incident["samples"] == [[4 * BATCH, 5 * BATCH]]
    assert incident["batch_hash"] == before[5][2]
    listed = [sample["position"] for sample in incident["documents"]]
    assert listed == list(range(4 * BATCH, 5 * BATCH))
    ledger = check_ledger(tmp_path, rehash=None)
    assert not ledger.problems and ledger.skipped == [[4 * BATCH, 5 * BATCH]]


@layouts
def test_a_spike_is_rewound_and_its_samples_are_jumped(world, inputs, healthy, tmp_path, where):
    before = healthy(where)
    options = {"on_spike": "rewind"}
    # Its samples alone make the spike: without the jump it would come again.
    end = run_poisoned(world, where, inputs, tmp_path, "spike", before[8][2], **options)
    assert end == STEPS
    check_rewound(tmp_path, before)


def check_rewound(run_dir, before):
    """Back from step 8 to step 3, and over the samples of steps 7 to 9."""
    after = trained(run_dir)
    assert list(after) == list(range(1, STEPS + 1))
    assert [after[step] for step in range(1, 7)] == [before[step] for step in range(1, 7)]
    assert [after[step][2] for step in (7, 8, 9)] == [before[step][2] for step in (10, 11, 12)]
    assert rows(run_dir)[STEPS]["consumed_samples"] == STEPS * BATCH
    (incident,) = read_incidents(run_dir)
    assert incident["action"] == "rewind" and incident["rewind_to"] == 3
    assert incident["jumped"] == [6 * BATCH, 9 * BATCH]
    listed = (run_dir / incident["jumped_documents"]).read_text().splitlines()
    positions = [json.loads(line)["position"] for line in listed]
    assert positions == list(range(6 * BATCH, 9 * BATCH))
    for folder in verify.step_folders(run_dir / "checkpoints"):
        verify.verify_checkpoint(folder)
        jumped = [[6 * BATCH, 9 * BATCH]] if verify.step_of(folder) > 3 else []
        assert read_state(folder).jumped_samples == jumped
    rewound = [json.loads(line) for line in (run_dir / "rewound.jsonl").read_text().splitlines()]
    assert [(row["rewind"], row["step"]) for row in rewound] == [(1, step) for step in range(4, 8)]
    ledger = check_ledger(run_dir, rehash=None)
    assert not ledger.problems and ledger.trained == [[0, 96], [144, 240]]


@pytest.mark.parametrize("moment", ["before_the_removal", "after_the_removal"])
def test_a_rewind_that_is_cut_off_is_finished_by_the_next_start(
    world, inputs, healthy, tmp_path, moment
):
    where = "DP2"
    before, (size, degrees) = healthy(where), LAYOUTS[where]
    overrides = [*inputs, *degrees, f"run_dir={tmp_path}", "stability.on_spike=rewind"]
    world.run(size, cut_off, overrides, before[8][2], moment, joined=False)
    left = verify.committed_steps(tmp_path / "checkpoints")
    assert left == ([3, 6] if moment == "before_the_removal" else [3])
    assert world.run(size, pretrain_here, overrides, joined=False) == [STEPS] * size
    check_rewound(tmp_path, before)


class CutOff(BaseException):
    """As if the process had died."""


def cut_off(overrides, when, moment):
    discard = CheckpointStore.discard
    calls = []

    def dying(self, unwanted):
        calls.append(None)
        if len(calls) == 1:
            return discard(self, unwanted)
        if moment == "after_the_removal":
            discard(self, unwanted)
        raise CutOff

    with mock.patch.object(CheckpointStore, "discard", dying), pytest.raises(CutOff):
        pretrain_poisoned(overrides, "spike", when)


def test_a_run_that_goes_back_again_and_again_stops(world, inputs, tmp_path):
    where = "DP2"
    options = {"on_spike": "rewind", "max_rewinds": 2}
    said = run_poisoned(world, where, inputs, tmp_path, "spike", "8", **options)
    assert re.search(r"at step 8 \(samples 208 to 223\).*max_rewinds=2 is reached", said)
    actions = [incident["action"] for incident in read_incidents(tmp_path)]
    assert actions == ["rewind", "rewind", "stop"]
    assert max(rows(tmp_path)) == 7
    state = read_state(verify.step_folders(tmp_path / "checkpoints")[0])
    assert state.step == 6 and state.jumped_samples == [[96, 192]]


def test_a_run_stops_where_that_is_the_policy(world, inputs, tmp_path):
    where = "DP2"
    said = run_poisoned(world, where, inputs, tmp_path, "loss", "5", on_non_finite="stop")
    assert "non-finite loss nan at step 5 (samples 64 to 79); no checkpoint holds this step" in said
    assert max(rows(tmp_path)) == 4
    assert verify.committed_steps(tmp_path / "checkpoints") == [3]
