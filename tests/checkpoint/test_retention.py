"""Which checkpoints stay, and how much disk a run will need."""

import pytest

from megatron_biollm.checkpoint.config import CheckpointConfig
from megatron_biollm.checkpoint.retention import (
    check_disk_space,
    fast_to_delete,
    forecast,
    most_at_once,
    steps_to_delete,
)
from megatron_biollm.config import UserError

STEPS = [100, 200, 300, 400, 500]


@pytest.mark.parametrize(
    ("keep_last", "keep_every", "deleted"),
    [
        (2, 0, [100, 200, 300]),
        (2, 200, [100, 300]),
        (1, 300, [100, 200, 400]),
        (5, 0, []),
        (9, 0, []),
        (0, 0, []),
        (0, 200, []),
    ],
)
def test_the_newest_and_the_milestones_stay(keep_last, keep_every, deleted):
    assert steps_to_delete(STEPS, keep_last, keep_every) == deleted
    assert steps_to_delete(reversed(STEPS), keep_last, keep_every) == deleted


@pytest.mark.parametrize(
    ("newest_reshardable", "keep", "deleted"),
    [(-1, 2, [100, 200, 300]), (250, 9, [100, 200]), (250, 1, [100, 200, 300, 400]), (500, 2, [])],
)
def test_fast_ones_go_by_number_and_where_a_newer_one_serves_every_layout(
    newest_reshardable, keep, deleted
):
    expected = deleted or [100, 200, 300, 400]
    steps = STEPS if deleted else STEPS[:-1]
    assert fast_to_delete(steps, newest_reshardable, keep) == expected


@pytest.mark.parametrize(
    "config",
    [
        CheckpointConfig(save_interval=20, fast_save_interval=2, keep_last=2, keep_last_fast=3),
        CheckpointConfig(save_interval=20, fast_save_interval=7, keep_last=1, keep_last_fast=2),
        CheckpointConfig(save_interval=40, fast_save_interval=20, keep_every=40),
        CheckpointConfig(save_interval=0, fast_save_interval=9, keep_last_fast=1),
        CheckpointConfig(save_interval=30, fast_save_interval=10, keep_last=0, keep_last_fast=9),
    ],
)
def test_the_forecast_is_enough_for_both_kinds(config):
    """Played through, as below; it may be one too high, and is never too low."""
    held, fast, most = set(), set(), 0
    for step in range(1, 101):
        if step == 100 or (config.save_interval and step % config.save_interval == 0):
            held.add(step)
        elif step % config.fast_save_interval == 0:
            fast.add(step)
        most = max(most, len(held) + len(fast))
        held -= set(steps_to_delete(held, config.keep_last, config.keep_every))
        fast -= set(fast_to_delete(fast, max(held, default=-1), config.keep_last_fast))
    first = min(config.save_interval or 100, 100)
    assert most <= most_at_once(config, first, train_iters=100) <= most + 1


@pytest.mark.parametrize(
    "config",
    [
        CheckpointConfig(save_interval=10, keep_last=2),
        CheckpointConfig(save_interval=10, keep_last=3, keep_every=40),
        CheckpointConfig(save_interval=7, keep_last=1),
        CheckpointConfig(save_interval=10, keep_last=0),
        CheckpointConfig(save_interval=0),
        CheckpointConfig(save_interval=1000),
    ],
)
@pytest.mark.parametrize("first_save", [0, 41])
def test_the_forecast_is_the_most_that_a_run_holds(config, first_save):
    """Played through save by save: a new one is written before an old one is removed."""
    saves = [s for s in range(1, 101) if config.save_interval and s % config.save_interval == 0]
    saves = [s for s in sorted({*saves, 100}) if s > first_save]
    held, most = set(), 0
    for step in saves:
        held.add(step)
        most = max(most, len(held))
        held -= set(steps_to_delete(held, config.keep_last, config.keep_every))
    assert most_at_once(config, saves[0], train_iters=100) == most


def test_the_forecast_says_whether_the_disk_holds_it():
    text, fits = forecast(needed=10**9, count=4, free=5 * 10**9)
    assert fits and "1.00 GB, at most 4 at once 4.00 GB; 5.00 GB are free" in text
    text, fits = forecast(needed=10**9, count=4, free=3 * 10**9)
    assert not fits and "lower checkpoint.keep_last" in text


def test_a_save_that_the_disk_cannot_hold_is_refused_with_both_sizes(tmp_path):
    check_disk_space(tmp_path, 1)
    with pytest.raises(UserError, match=r"needs 1000000000\.00 GB and .* free; free some space"):
        check_disk_space(tmp_path, 10**18)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep_last_fast": 0}, r"keep_last_fast=0 must be at least 1; .*fast_save_interval=0"),
        ({"on_save_failure": "ignore"}, r"on_save_failure=ignore must be stop or continue"),
        ({"save_interval": 10, "fast_save_interval": 10}, r"fast_save_interval=10 must be smaller"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        CheckpointConfig(**options)


@pytest.mark.parametrize("name", ["save_interval", "fast_save_interval", "keep_last", "keep_every"])
def test_negative_numbers_are_refused(name):
    with pytest.raises(UserError, match=rf"checkpoint\.{name}=-1 must not be negative"):
        CheckpointConfig(**{name: -1})
