import pytest

from megatron_biollm.config import UserError
from megatron_biollm.training.config import OptimizerConfig, TrainingConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lr": 0.0}, "optimizer.lr=0.0 must be greater than 0"),
        ({"lr": 1e-3, "min_lr": 2e-3}, "min_lr=0.002 must lie between 0 and optimizer.lr=0.001"),
        ({"min_lr": -1e-5}, "min_lr=-1e-05 must lie between"),
        ({"lr_decay_style": "cosin"}, "lr_decay_style=cosin is unknown; choose one of cosine"),
        ({"lr_wsd_decay_style": "odd"}, "lr_wsd_decay_style=odd is unknown; choose one of"),
        ({"lr_decay_style": "WSD"}, "WSD needs optimizer.lr_wsd_decay_iters"),
        ({"lr_decay_iters": 0}, "lr_decay_iters=0 must be at least 1"),
        ({"lr_wsd_decay_iters": 0}, "lr_wsd_decay_iters=0 must be at least 1"),
        ({"adam_beta1": 1.0}, "adam_beta1=1.0 must be at least 0 and less than 1"),
        ({"adam_beta2": -0.1}, "adam_beta2=-0.1 must be at least 0 and less than 1"),
        ({"lr_warmup_iters": -1}, "lr_warmup_iters=-1 must not be negative"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1 must not be negative"),
        ({"clip_grad": -1.0}, "clip_grad=-1.0 must not be negative"),
    ],
)
def test_a_wrong_optimizer_is_refused_with_the_rule(fields, message):
    with pytest.raises(UserError, match=message):
        OptimizerConfig(**fields)


def test_the_smallest_learning_rate_is_a_tenth_of_the_largest():
    assert OptimizerConfig(lr=3e-4).min_lr == pytest.approx(3e-5)
    assert OptimizerConfig(lr=3e-4, min_lr=0.0).min_lr == 0.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"micro_batch_size": 0}, "training.micro_batch_size=0 must be at least 1"),
        ({"fp8": "e5m2", "bf16": True}, "training.fp8=e5m2 is unknown; choose one of e4m3, hybrid"),
        ({"fp8_recipe": "rowwise"}, "fp8_recipe=rowwise is unknown; choose one of tensorwise"),
        ({"fp8_amax_history_len": 0}, "training.fp8_amax_history_len=0 must be at least 1"),
        ({"fp8": "hybrid"}, "fp8=hybrid casts what is bf16, but .*bf16=false; set .*bf16=true"),
        ({"fp8": "hybrid", "bf16": True, "device": "cpu"}, "fp8=hybrid needs a GPU.*device=cpu"),
        ({"global_batch_size": 0}, "training.global_batch_size=0 must be at least 1"),
        ({"train_iters": 0}, "training.train_iters=0 must be at least 1"),
        ({"exit_interval": 0}, "training.exit_interval=0 must be at least 1"),
        ({"eval_interval": -1}, "training.eval_interval=-1 must be at least 0"),
        ({"profile_step_start": 4, "profile_step_end": 3}, "must be steps in order"),
        ({"profile_step_start": 1, "profile_step_end": 3}, "must be steps in order, from 2 on"),
        ({"profile_step_start": 3}, "profile_step_start and profile_step_end go together"),
        ({"rampup_batch_size": [2, 2]}, "must be three positive numbers"),
        ({"rampup_batch_size": [2, 0, 10]}, "must be three positive numbers"),
        ({"rampup_batch_size": [16, 2, 10]}, "does not reach global_batch_size=8 from 16"),
        ({"rampup_batch_size": [1, 2, 10]}, "does not reach global_batch_size=8 from 1"),
    ],
)
def test_a_wrong_loop_is_refused_with_the_rule(fields, message):
    with pytest.raises(UserError, match=message):
        TrainingConfig(**fields)


def test_the_global_batch_grows_in_equal_spans_of_samples():
    config = TrainingConfig(global_batch_size=8, rampup_batch_size=[2, 2, 30])
    sizes = [config.global_batch_size_at(samples) for samples in (0, 9, 10, 19, 20, 29, 30, 99)]
    assert sizes == [2, 2, 4, 4, 6, 6, 8, 8]


def test_without_a_ramp_the_global_batch_is_constant():
    assert TrainingConfig(global_batch_size=8).global_batch_size_at(0) == 8


@pytest.mark.parametrize(
    ("fields", "data_parallel_size", "message"),
    [
        ({}, 3, "training.global_batch_size=8 .*micro_batch_size=1 x data-parallel size 3 = 3"),
        ({"micro_batch_size": 4}, 4, "global_batch_size=8 is not divisible by .* = 16; change one"),
        ({"rampup_batch_size": [2, 2, 30]}, 4, "rampup_batch_size start=2 is not divisible"),
        ({"rampup_batch_size": [4, 2, 30]}, 4, "its increment=2 is not divisible"),
    ],
)
def test_batches_that_do_not_split_over_the_ranks_are_refused(fields, data_parallel_size, message):
    config = TrainingConfig(**({"global_batch_size": 8} | fields))
    with pytest.raises(UserError, match=message):
        config.check_batches(data_parallel_size)


def test_batches_that_split_over_the_ranks_are_accepted():
    config = TrainingConfig(global_batch_size=8, micro_batch_size=2, rampup_batch_size=[4, 4, 30])
    config.check_batches(2)
