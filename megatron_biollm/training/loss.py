"""Causal language modelling: the sum over tokens, divided once by the global token count."""

import torch


def summed_loss(
    token_loss: torch.Tensor, loss_mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of one micro-batch as core's schedules take it under `calculate_per_token_loss`.

    Args:
        token_loss: cross-entropy per token, [b, s].
        loss_mask: 1 where a token counts, [b, s].

    Returns:
        The summed loss, the number of tokens that count (int), and both for the log as fp64:
        fp32 sums of many micro-batches would show in the sixth digit.
    """
    mask = loss_mask.view(-1).float()
    loss = (token_loss.float().view(-1) * mask).sum()
    tokens = mask.sum()
    logged = torch.stack([loss.detach().double(), tokens.double()])
    return loss, tokens.to(torch.int), {"loss_and_tokens": logged}
