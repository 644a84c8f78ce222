"""Training here equals training in plain PyTorch, step by step."""

from dataclasses import replace

import pytest
import torch
from transformers import get_cosine_with_min_lr_schedule_with_warmup

from tests.integration.hugging_face import llama, summed_token_loss, to_hugging_face
from tests.integration.small_run import (
    SmallRun,
    build_trainer,
    largest_deviation,
    sample,
    stack,
    train_steps,
)


def weights_and_steps(run):
    trainer = build_trainer(run)
    chunk = trainer.model.bare_chunks[0]
    weights = {name: value.detach().clone() for name, value in chunk.named_parameters()}
    return to_hugging_face(weights, run.sizes), train_steps(trainer, run)


def train_transformers(run, weights, decay_norms=False, **changed):
    """Loss and gradient norm of every step: AdamW, clipping, decay but on norms, the schedule."""
    model, options = llama(run.sizes, weights), replace(run.optimizer, **changed)
    norms = [p for p in model.parameters() if p.dim() == 1]
    matrices = [p for p in model.parameters() if p.dim() > 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": options.weight_decay},
            {"params": norms, "weight_decay": options.weight_decay if decay_norms else 0.0},
        ],
        lr=options.lr,
        betas=(options.adam_beta1, options.adam_beta2),
        eps=options.adam_eps,
    )
    schedule = get_cosine_with_min_lr_schedule_with_warmup(
        optimizer, options.lr_warmup_iters, run.steps, min_lr=options.min_lr
    )
    size, losses, grad_norms = run.global_batch_size, [], []
    for first in range(0, run.steps * size, size):
        batch = stack([sample(index, run.packed) for index in range(first, first + size)])
        loss = summed_token_loss(model, batch) / batch["loss_mask"].sum()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip_grad)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        grad_norms.append(norm.item())
    return losses, grad_norms


@pytest.fixture(scope="module")
def trained(world):
    """A run, its initial weights under transformers' names, and its steps."""
    run = SmallRun()
    return run, *world.run(1, weights_and_steps, run)[0]


def deviations(steps, run, weights, **changed):
    losses, grad_norms = train_transformers(run, weights, **changed)
    return (
        largest_deviation([step.loss for step in steps], losses),
        largest_deviation([step.grad_norm for step in steps], grad_norms),
    )


def test_twenty_steps_equal_those_of_transformers(trained):
    run, weights, steps = trained
    loss, grad_norm = deviations(steps, run, weights)
    print(f"against transformers: loss {loss:.1e}, gradient norm {grad_norm:.1e}")
    assert len(steps) == 20
    assert loss < 1e-4
    assert grad_norm < 1e-4


def test_packed_documents_equal_those_of_transformers_under_a_block_diagonal_mask(world):
    run = SmallRun(packed=True)
    weights, steps = world.run(1, weights_and_steps, run)[0]
    loss, grad_norm = deviations(steps, run, weights)
    print(f"packed, against transformers: loss {loss:.1e}, gradient norm {grad_norm:.1e}")
    assert loss < 1e-4
    assert grad_norm < 1e-4


def test_the_run_learns_and_clips(trained):
    run, _, steps = trained
    assert steps[-1].loss < 0.7 * steps[0].loss
    assert max(step.grad_norm for step in steps) > run.optimizer.clip_grad


@pytest.mark.parametrize(
    "changed",
    [
        {"decay_norms": True},
        {"weight_decay": 0.0},
        {"clip_grad": 100.0},
        {"adam_beta2": 0.96},
        {"adam_eps": 1e-4},
        {"lr_warmup_iters": 3},
        {"min_lr": 0.0},
    ],
    ids=str,
)
def test_the_comparison_sees_a_different_optimizer(trained, changed):
    run, weights, steps = trained
    assert deviations(steps, run, weights, **changed)[0] > 1e-4
