import pytest
import torch

from megatron_biollm.training.objective import Objective, Outcome, as_core_wants


def language_modelling(token_loss: torch.Tensor, loss_mask: torch.Tensor):
    outcome = Objective().outcome(token_loss, {"loss_mask": loss_mask}, groups=None)
    return as_core_wants(outcome, ())


def test_only_the_tokens_of_the_mask_count():
    token_loss = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]], requires_grad=True)
    loss_mask = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    loss, tokens, logged = language_modelling(token_loss, loss_mask)
    assert loss.item() == 21.0
    assert (tokens.item(), tokens.dtype) == (3, torch.int32)
    assert logged["totals"].tolist() == [21.0, 3.0]
    loss.backward()
    assert torch.equal(token_loss.grad, loss_mask)


def test_a_micro_batch_without_a_token_that_counts_adds_nothing():
    loss, tokens, _ = language_modelling(torch.ones(1, 4), torch.zeros(1, 4))
    assert (loss.item(), tokens.item()) == (0.0, 0)


def test_bf16_losses_are_summed_in_fp32():
    token_loss = torch.full((1, 4096), 1.0, dtype=torch.bfloat16)
    loss, _, logged = language_modelling(token_loss, torch.ones(1, 4096))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(4096.0)
    assert logged["totals"].dtype == torch.float64


def test_metrics_follow_the_loss_in_the_order_of_their_names():
    one, two = torch.tensor(1.0), torch.tensor(2.0)
    metrics = {"length": (two, one), "accuracy": (one, two)}
    outcome = Outcome(two, torch.tensor(3), metrics, {"score": one})
    _, _, logged = as_core_wants(outcome, ("accuracy", "length"))
    assert logged["totals"].tolist() == [2.0, 3.0, 1.0, 2.0, 2.0, 1.0]
    assert logged["score"] is one
