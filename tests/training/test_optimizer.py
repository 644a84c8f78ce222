import math

import pytest
import torch
from megatron.core import optimizer as core_optimizer
from megatron.core.optimizer import distrib_optimizer
from transformers import get_cosine_with_min_lr_schedule_with_warmup, get_wsd_schedule

from megatron_biollm.training.config import OptimizerConfig
from megatron_biollm.training.optimizer import GroupStepAdamW, build_scheduler, group_step_adam

LR, STEPS, WARMUP = 2e-3, 50, 5


def parameters():
    random = torch.Generator().manual_seed(0)
    shapes = [(7, 5), (5,), (3, 4, 2)]
    return [torch.nn.Parameter(torch.randn(shape, generator=random)) for shape in shapes]


def train(optimizer, params, steps):
    for step in steps:
        random = torch.Generator().manual_seed(step)
        for parameter in params:
            parameter.grad = torch.randn(parameter.shape, generator=random)
        optimizer.step()


def groups(params):
    return [
        {"params": params[:1], "weight_decay": 0.1, "lr": 3e-3},
        {"params": params[1:], "weight_decay": 0.0},
    ]


OPTIONS = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-5}


def test_it_updates_as_torch_adamw_does():
    ours, theirs = parameters(), parameters()
    train(GroupStepAdamW(groups(ours), **OPTIONS), ours, range(20))
    train(torch.optim.AdamW(groups(theirs), **OPTIONS), theirs, range(20))
    for one, other, start in zip(ours, theirs, parameters(), strict=True):
        assert (one - other).abs().max() < 1e-6
        assert (one - start).abs().max() > 1e-2


def test_it_leaves_a_parameter_without_gradient_alone():
    params = parameters()
    for parameter in params[1:]:
        parameter.grad = torch.ones_like(parameter)
    GroupStepAdamW(groups(params), **OPTIONS).step()
    assert torch.equal(params[0], parameters()[0])
    assert not torch.equal(params[1], parameters()[1])


def test_it_counts_the_step_once_for_a_group():
    params = parameters()
    optimizer = GroupStepAdamW(groups(params))
    train(optimizer, params, range(3))
    assert [group["step"] for group in optimizer.param_groups] == [3, 3]
    assert all("step" not in state for state in optimizer.state.values())


def test_it_goes_on_from_a_saved_state():
    whole, params = parameters(), parameters()
    train(GroupStepAdamW(groups(whole), **OPTIONS), whole, range(5))
    first, second = (GroupStepAdamW(groups(params), **OPTIONS) for _ in range(2))
    train(first, params, range(3))
    second.load_state_dict(first.state_dict())
    train(second, params, range(3, 5))
    assert all(torch.equal(one, other) for one, other in zip(params, whole, strict=True))


def test_a_mode_it_does_not_have_is_refused():
    with pytest.raises(ValueError, match="adam_w_mode=False.*Transformer Engine or apex"):
        GroupStepAdamW(parameters(), adam_w_mode=False)
    with pytest.raises(ValueError, match="master_weights"):
        GroupStepAdamW(parameters(), master_weights=True)


@pytest.mark.skipif(
    not core_optimizer.USING_PYTORCH_OPTIMIZER, reason="Transformer Engine or apex is present"
)
def test_core_finds_it_inside_the_block_only():
    before = core_optimizer.Adam, distrib_optimizer.Adam, distrib_optimizer.HAVE_APEX_OR_TE
    with group_step_adam():
        assert core_optimizer.Adam is distrib_optimizer.Adam is GroupStepAdamW
    after = core_optimizer.Adam, distrib_optimizer.Adam, distrib_optimizer.HAVE_APEX_OR_TE
    assert after == before


def learning_rates(**fields):
    """The rate of each of `STEPS` steps under our schedule."""
    config = OptimizerConfig(lr=LR, lr_warmup_iters=WARMUP, **fields)
    optimizer = torch.optim.AdamW(parameters(), lr=LR)
    scheduler, rates = build_scheduler(optimizer, config, STEPS), []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step(1)
    return rates


def their_rates(schedule, **options):
    optimizer = torch.optim.AdamW(parameters(), lr=LR)
    scheduler, rates = schedule(optimizer, **options), []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_warmup_and_cosine_are_those_of_transformers():
    expected = their_rates(
        get_cosine_with_min_lr_schedule_with_warmup,
        num_warmup_steps=WARMUP,
        num_training_steps=STEPS,
        min_lr=LR / 10,
    )
    assert learning_rates() == pytest.approx(expected, rel=1e-9)


def test_warmup_stable_decay_is_that_of_transformers():
    expected = their_rates(
        get_wsd_schedule,
        num_warmup_steps=WARMUP,
        num_stable_steps=STEPS - WARMUP - 20,
        num_decay_steps=20,
        min_lr_ratio=0.1,
        decay_type="linear",
    )
    rates = learning_rates(lr_decay_style="WSD", lr_wsd_decay_iters=20)
    # Theirs warms up from the smallest rate, ours from 0 as Megatron-LM's does.
    assert rates[WARMUP:] == pytest.approx(expected[WARMUP:], rel=1e-9)
    assert rates[:WARMUP] == learning_rates()[:WARMUP]


@pytest.mark.parametrize(
    ("style", "at"),
    [
        ("linear", lambda done: 0.1 + 0.9 * (1 - done)),
        ("constant", lambda done: 1.0),
        ("cosine", lambda done: 0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2),
    ],
)
def test_after_the_warmup_the_rate_follows_its_formula(style, at):
    warmup = [step / WARMUP for step in range(WARMUP)]
    decay = [at((step - WARMUP) / (STEPS - WARMUP)) for step in range(WARMUP, STEPS)]
    expected = [LR * factor for factor in warmup + decay]
    assert learning_rates(lr_decay_style=style) == pytest.approx(expected, rel=1e-9)


def test_after_its_end_the_schedule_stays_at_the_smallest_rate():
    assert learning_rates(lr_decay_iters=20)[20:] == pytest.approx([LR / 10] * (STEPS - 20))


def test_the_schedule_is_a_function_of_the_step_alone():
    config = OptimizerConfig(lr=LR, lr_warmup_iters=WARMUP)
    optimizer = torch.optim.AdamW(parameters(), lr=LR)
    build_scheduler(optimizer, config, STEPS).step(17)
    assert optimizer.param_groups[0]["lr"] == learning_rates()[17]


@pytest.mark.parametrize("train_iters", [1, WARMUP])
def test_a_run_that_ends_within_its_warmup_has_a_schedule(train_iters):
    optimizer = torch.optim.AdamW(parameters(), lr=LR)
    config = OptimizerConfig(lr=LR, lr_warmup_iters=WARMUP)
    build_scheduler(optimizer, config, train_iters).step(1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(LR / WARMUP)
