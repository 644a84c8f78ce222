import math

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.training.stability import (
    Action,
    Guard,
    Rewind,
    StabilityConfig,
    Unstable,
    spike_limit,
)
from megatron_biollm.training.state import TrainState

BATCH = 16


class Told:
    """A guard, what it recorded, and the run's state after some healthy steps."""

    def __init__(self, steps=100, checkpoint=None, rewinds=0, **options):
        self.incidents, self.state = [], TrainState()
        config = StabilityConfig(**options)
        self.guard = Guard(config, self.incidents.append, lambda step: checkpoint, rewinds)
        for step in range(steps):
            assert self.take(2.0 + 0.01 * (step % 5), 1.0 + 0.1 * (step % 3)) is Action.APPLY

    def take(self, loss, grad_norm=1.0):
        action = self.guard.judge(self.state, loss, grad_norm)
        action = self.guard.settle(self.state, action, BATCH, batch_hash=7)
        self.guard.remember(self.state, action, loss, grad_norm)
        self.state.advance(BATCH, seq_length=8)
        return action


@pytest.mark.parametrize("numbers", [(math.nan, 1.0), (math.inf, 1.0), (2.0, math.nan)])
def test_a_number_that_is_not_finite_is_found_from_the_first_step(numbers):
    told = Told(steps=0)
    assert told.take(*numbers) is Action.SKIP
    (incident,) = told.incidents
    assert (incident.step, incident.kind, incident.action) == (1, "non-finite", "skip")
    assert incident.samples == [[0, BATCH]] and incident.batch_hash == 7


def test_a_spike_is_found_by_the_steps_before_it():
    told = Told(on_spike="skip")
    assert told.take(2.05) is Action.APPLY and not told.incidents
    assert told.take(2.9) is Action.SKIP
    assert told.take(2.0, grad_norm=30.0) is Action.SKIP
    assert [(i.what, i.kind) for i in told.incidents] == [("loss", "spike"), ("grad_norm", "spike")]
    assert told.incidents[0].median < told.incidents[0].threshold < 2.9


def test_a_fall_is_no_spike():
    assert Told(on_spike="stop").take(0.5, 0.01) is Action.APPLY


def test_a_spike_is_only_reported_unless_asked_otherwise():
    told = Told()
    assert told.take(9.0) is Action.APPLY
    assert [incident.action for incident in told.incidents] == ["report"]


def test_too_few_steps_tell_no_spike():
    assert Told(steps=63, on_spike="stop").take(9.0) is Action.APPLY
    with pytest.raises(Unstable):
        Told(steps=64, on_spike="stop").take(9.0)


def test_an_outlier_does_not_hide_the_next():
    calm = [2.0, 2.1] * 32
    config = StabilityConfig()
    assert spike_limit([*calm, 1000.0], config)[1] < 3.0


def test_a_level_that_has_risen_for_good_is_accepted_after_half_a_window():
    told = Told(window=8, steps=8, on_spike="report")
    for _ in range(8):
        told.take(3.0)
    assert told.take(3.0) is Action.APPLY and told.incidents[-1].step < told.state.step


def test_a_run_that_only_skips_stops():
    told = Told(max_skips_in_a_row=2)
    for _ in range(2):
        assert told.take(math.nan) is Action.SKIP
    with pytest.raises(Unstable, match=r"step 103 \(samples 1632 to 1647\).*max_skips_in_a_row=2"):
        told.take(math.nan)
    assert [incident.action for incident in told.incidents] == ["skip", "skip", "stop"]


def test_a_healthy_step_between_two_skips_begins_a_new_row():
    told = Told(max_skips_in_a_row=1)
    assert [told.take(loss) for loss in (math.nan, 2.0, math.nan)] == [1, 0, 1]


def test_a_rewind_jumps_the_samples_around_the_step():
    checkpoint = TrainState(step=90, consumed_samples=90 * BATCH)
    told = Told(on_spike="rewind", checkpoint=checkpoint, jump_before=2, jump_after=3)
    with pytest.raises(Rewind) as raised:
        told.take(9.0)
    assert raised.value.incident is told.incidents[0]
    assert told.incidents[0].rewind_to == 90
    assert told.incidents[0].jumped == [98 * BATCH, 104 * BATCH]


def test_a_rewind_jumps_nothing_that_its_checkpoint_has_trained_on():
    checkpoint = TrainState(step=99, consumed_samples=99 * BATCH)
    told = Told(on_spike="rewind", checkpoint=checkpoint, rewind_margin=1)
    with pytest.raises(Rewind):
        told.take(9.0)
    assert told.incidents[0].jumped == [99 * BATCH, 201 * BATCH]


def test_a_second_rewind_counts_positions_in_the_stream():
    checkpoint = TrainState(step=90, consumed_samples=90 * BATCH)
    told = Told(on_spike="rewind", checkpoint=checkpoint, jump_before=2, jump_after=0)
    told.state.jumped_samples = [[0, 100], [99 * BATCH + 100, 99 * BATCH + 110]]
    with pytest.raises(Rewind):
        told.take(9.0)
    assert told.incidents[0].jumped == [98 * BATCH + 100, 101 * BATCH + 110]
    assert told.incidents[0].samples == [[100 * BATCH + 110, 101 * BATCH + 110]]


def test_without_an_old_checkpoint_the_update_is_skipped_instead():
    told = Told(on_spike="rewind")
    assert told.take(9.0) is Action.SKIP
    assert "no good checkpoint is stability.rewind_margin=100" in told.incidents[0].reason


def test_a_run_that_only_rewinds_stops():
    told = Told(on_non_finite="rewind", max_rewinds=2, rewinds=2, checkpoint=TrainState())
    with pytest.raises(Unstable, match="max_rewinds=2 is reached"):
        told.take(math.nan)


def test_what_another_rank_found_holds_here_too():
    told = Told()
    assert told.guard.judge(told.state, 2.0, 1.0) is Action.APPLY
    assert told.guard.settle(told.state, Action.SKIP, BATCH, batch_hash=7) is Action.SKIP
    assert told.incidents[0].kind == "on another rank"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_spike": "panic"}, "stability.on_spike=panic is unknown; choose one of ignore"),
        ({"on_non_finite": "report"}, "on_non_finite=report is unknown; choose one of skip"),
        ({"window": 2}, "stability.window=2 must be at least 8"),
        ({"sigmas": 0.0}, "stability.sigmas=0.0 must be greater than 0"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        StabilityConfig(**options)
