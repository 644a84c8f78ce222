import pytest
import torch

from megatron_biollm.training.loss import summed_loss


def test_only_the_tokens_of_the_mask_count():
    token_loss = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]], requires_grad=True)
    loss_mask = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    loss, tokens, logged = summed_loss(token_loss, loss_mask)
    assert loss.item() == 21.0
    assert (tokens.item(), tokens.dtype) == (3, torch.int32)
    assert logged["loss_and_tokens"].tolist() == [21.0, 3.0]
    loss.backward()
    assert torch.equal(token_loss.grad, loss_mask)


def test_a_micro_batch_without_a_token_that_counts_adds_nothing():
    loss, tokens, _ = summed_loss(torch.ones(1, 4), torch.zeros(1, 4))
    assert (loss.item(), tokens.item()) == (0.0, 0)


def test_bf16_losses_are_summed_in_fp32():
    token_loss = torch.full((1, 4096), 1.0, dtype=torch.bfloat16)
    loss, _, logged = summed_loss(token_loss, torch.ones(1, 4096))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(4096.0)
    assert logged["loss_and_tokens"].dtype == torch.float64
