"""Conversations that share a row are trained as if each were alone, and the layout is no matter."""

import numpy as np
import pytest
import torch

from megatron_biollm.finetune.sft_dataset import make_row
from megatron_biollm.training.objective import Objective
from tests.integration.small_run import (
    SEQ_LENGTH,
    VOCABULARY,
    SmallRun,
    build_trainer,
    largest_deviation,
    stack,
)

LENGTHS = (17, 9, 23)
# Whole gradients on every rank of the data-parallel group, to compare them.
WHOLE = {"use_distributed_optimizer": False}
ROWS = 8


class PerToken(Objective):
    """Hands out the loss of every place too."""

    def outcome(self, output, batch, groups):
        found = super().outcome(output, batch, groups)
        found.outputs["loss"] = output.detach().clone()
        return found


def conversation(length, seed):
    """Ids and mask that take `length` places; an uneven part of it is the assistant's."""
    random = np.random.default_rng(seed)
    mask = np.zeros(length + 1, np.uint8)
    mask[-int(random.integers(2, length)) :] = 1
    return random.integers(3, VOCABULARY, length + 1), mask


def rows_of(*groups):
    return stack([make_row(group, SEQ_LENGTH, pad=2) for group in groups])


def first_three():
    return [conversation(length, seed) for seed, length in enumerate(LENGTHS)]


def losses_and_gradients(run, batches):
    """The loss of every place, [rows, places], the mean, the count, and the gradients."""
    trainer = build_trainer(run)
    trainer.objective = PerToken()
    outputs = trainer.outputs(iter(batches), len(batches))
    for chunk in trainer.model.chunks:
        chunk.train()
        chunk.zero_grad_buffer()
    mean, count, _ = trainer._run(batches)
    named = trainer.model.bare_chunks[0].named_parameters()
    gradients = {name: parameter.main_grad.clone() for name, parameter in named}
    # Packed rows come as one; rows that are not have lost the columns that are padding in all.
    losses = [o["loss"].reshape(-1, SEQ_LENGTH) if run.packed else o["loss"] for o in outputs]
    return torch.cat(losses), mean, count, gradients


def together(packed):
    """The three conversations in one row."""
    run = SmallRun(parallel=WHOLE, packed=packed, micro_batch_size=1)
    return losses_and_gradients(run, [rows_of(first_three())])


def each_alone():
    """Each of the three in a row of its own."""
    run = SmallRun(parallel=WHOLE, micro_batch_size=len(LENGTHS))
    return losses_and_gradients(run, [rows_of(*([one] for one in first_three()))])


@pytest.fixture(scope="module")
def alone(world):
    return world.run(1, each_alone)[0]


def of_each(row):
    """The places of each conversation in the packed row."""
    return torch.split(row[: sum(LENGTHS)], LENGTHS)


def relative_distance(one, other):
    """Between two sets of gradients, as one vector each."""
    ones, others = (torch.cat([g[n].flatten() for n in sorted(one)]) for g in (one, other))
    return ((ones - others).norm() / others.norm()).item()


def test_packed_losses_and_gradients_are_those_of_each_conversation_alone(world, alone):
    losses, mean, count, gradients = world.run(1, together, True)[0]
    for row, (length, found) in enumerate(zip(LENGTHS, of_each(losses[0]), strict=True)):
        assert torch.allclose(found, alone[0][row, :length], rtol=0, atol=1e-5)
    assert count == alone[2] and mean == pytest.approx(alone[1], rel=1e-6)
    assert relative_distance(gradients, alone[3]) < 1e-5


def test_attention_across_conversations_would_be_noticed(world, alone):
    """The negative control: the same row under plain causal attention."""
    losses, _, _, gradients = world.run(1, together, False)[0]
    for row, (length, found) in enumerate(zip(LENGTHS, of_each(losses[0]), strict=True)):
        difference = (found - alone[0][row, :length]).abs().max()
        assert difference < 1e-5 if row == 0 else difference > 0.1
    assert relative_distance(gradients, alone[3]) > 0.1


def before_and_after_a_change():
    run, (ids, mask), *others = SmallRun(packed=True, micro_batch_size=1), *first_three()
    changed = ids.copy()
    changed[4] = (changed[4] + 1) % VOCABULARY
    batches = [rows_of([(one, mask), *others]) for one in (ids, changed)]
    return losses_and_gradients(run, batches)[0]


def test_a_token_of_the_first_conversation_leaves_the_others_losses_alone(world):
    before, after = world.run(1, before_and_after_a_change)[0]
    first, *others = zip(of_each(before), of_each(after), strict=True)
    assert (first[0] - first[1]).abs().max() > 1e-3
    assert all((one - two).abs().max() <= 1e-6 for one, two in others)


def gradients_of_unequal_rows(micro_batch_size):
    """The same eight rows of very unequal counts, dealt to this rank of the world."""
    run = SmallRun(parallel=WHOLE, packed=True, micro_batch_size=micro_batch_size)
    rows = []
    for number in range(ROWS):
        lengths = [7, 12, 40] if number % 3 else [3]
        rows.append([conversation(length, 100 * number + i) for i, length in enumerate(lengths)])
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    starts = range(rank * micro_batch_size, ROWS, size * micro_batch_size)
    batches = [rows_of(*rows[start : start + micro_batch_size]) for start in starts]
    return losses_and_gradients(run, batches)[1:]


@pytest.mark.parametrize(("processes", "micro_batch_size"), [(1, 2), (1, 4), (2, 1), (2, 4)])
def test_neither_micro_batches_nor_ranks_change_the_gradient(world, processes, micro_batch_size):
    mean, count, expected = world.run(1, gradients_of_unequal_rows, 1)[0]
    for found in world.run(processes, gradients_of_unequal_rows, micro_batch_size):
        assert found[1] == count and found[0] == pytest.approx(mean, rel=1e-6)
        assert relative_distance(found[2], expected) < 1e-5


def trained_on_conversations(parallel):
    run = SmallRun(parallel=parallel, packed=True, micro_batch_size=1, steps=3)
    trainer = build_trainer(run)
    batches = iter([rows_of(first_three()), rows_of([conversation(60, 9)])] * run.steps)
    steps = [trainer.train_step(batches, 2) for _ in range(run.steps)]
    return [step.loss for step in steps], [step.grad_norm for step in steps]


@pytest.mark.parametrize("degree", ["tensor", "pipeline"])
def test_two_ranks_train_as_one_does(world, degree):
    expected = world.run(1, trained_on_conversations, {})[0]
    for found in world.run(2, trained_on_conversations, {f"{degree}_model_parallel_size": 2}):
        assert max(map(largest_deviation, found, expected)) < 1e-5
