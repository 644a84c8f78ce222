"""Cross-entropy in parts: torch's values, and the gradient in the memory of the logits."""

import pytest
import torch
from torch.nn import functional

from megatron_biollm.device import vocab_loss
from megatron_biollm.device.vocab_loss import vocab_cross_entropy

ROWS, VOCABULARY = (7, 3), 22


def case(dtype):
    random = torch.Generator().manual_seed(0)
    logits = (torch.randn(*ROWS, VOCABULARY, generator=random) * 4).to(dtype)
    target = torch.randint(VOCABULARY, ROWS, generator=random)
    return logits, target, torch.rand(ROWS, generator=random)


def plain(logits, target):
    losses = functional.cross_entropy(
        logits.float().flatten(0, 1), target.flatten(), reduction="none"
    )
    return losses.view(target.shape)


def loss_and_gradient(function, logits, target, weight, **kwargs):
    leaf = logits.clone().requires_grad_()
    loss = function(leaf * 1, target, **kwargs)
    return loss.detach(), torch.autograd.grad((loss * weight).sum(), leaf)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("elements", [1, 3 * VOCABULARY, 2**18])
def test_it_gives_the_loss_and_the_gradient_of_torch(dtype, elements, monkeypatch):
    monkeypatch.setattr(vocab_loss, "ELEMENTS", elements)
    expected = loss_and_gradient(plain, *case(dtype))
    got = loss_and_gradient(vocab_cross_entropy, *case(dtype))
    assert got[0].dtype == torch.float32
    assert got[1].dtype == dtype
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_gradient_lies_where_the_logits_lay():
    logits, target, weight = case(torch.bfloat16)
    made = logits.clone().requires_grad_() * 1
    (gradient,) = torch.autograd.grad((vocab_cross_entropy(made, target) * weight).sum(), made)
    assert gradient.data_ptr() == made.data_ptr()


def test_logits_that_something_else_needs_are_refused_rather_than_wrong():
    logits, target, _ = case(torch.float32)
    made = logits.clone().requires_grad_() * 1
    squares, loss = made.square().sum(), vocab_cross_entropy(made, target).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        squares.backward()


def test_without_a_gradient_the_logits_stay():
    logits, target, _ = case(torch.float32)
    before = logits.clone()
    with torch.no_grad():
        torch.testing.assert_close(vocab_cross_entropy(logits, target), plain(logits, target))
    torch.testing.assert_close(logits, before, rtol=0, atol=0)


def test_logits_that_are_not_contiguous():
    logits, target, weight = case(torch.float32)
    expected = loss_and_gradient(plain, logits, target, weight)
    turned = loss_and_gradient(
        lambda x, y: vocab_cross_entropy(x.transpose(0, 1), y.T).T, logits, target, weight
    )
    for ours, theirs in zip(turned, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_no_rows():
    logits = torch.zeros(0, 1, VOCABULARY, requires_grad=True)
    loss = vocab_cross_entropy(logits * 1, torch.zeros(0, 1, dtype=torch.int64))
    loss.sum().backward()
    assert loss.shape == (0, 1)
    assert logits.grad.shape == logits.shape


def test_a_label_outside_the_vocabulary_counts_as_core_counts_it():
    # The mask of the loss hides such labels; they must not fail, nor be NaN.
    logits, target, weight = case(torch.float32)
    target[2, 1] = -100
    loss, gradient = loss_and_gradient(vocab_cross_entropy, logits, target, weight)
    torch.testing.assert_close(loss[2, 1], logits[2, 1].logsumexp(0))
    torch.testing.assert_close(gradient[2, 1], logits[2, 1].softmax(0) * weight[2, 1])


def share_of_a_rank(dtype):
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    logits, target, weight = case(dtype)
    share = logits.chunk(size, dim=-1)[rank].contiguous()
    return loss_and_gradient(
        vocab_cross_entropy, share, target, weight, group=torch.distributed.group.WORLD
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ranks_that_share_the_vocabulary_give_what_one_gives(world, dtype):
    loss, gradient = loss_and_gradient(plain, *case(dtype))
    first, second = world.run(2, share_of_a_rank, dtype)
    assert torch.equal(first[0], second[0])
    torch.testing.assert_close(first[0], loss)
    torch.testing.assert_close(torch.cat((first[1], second[1]), dim=-1), gradient)
