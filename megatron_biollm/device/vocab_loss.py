"""Cross-entropy over a vocabulary that is split over ranks, without its logits in fp32.

The logits are by far the largest tensor of a step: of 4,096 tokens over 34,816 pieces they take
0.27 GiB in bf16, and what usually lies beside them, an fp32 copy that becomes the softmax, twice
that. Here only `ELEMENTS` of them are fp32 at a time, one number a token is kept, and the gradient
is written where the logits lie.

Kernels that others keep were looked at first. liger-kernel's fused linear cross-entropy knows no
tensor parallelism and computes the gradient in the forward pass, for a reduction known there; ours
is not (losses are divided by the token count of the whole global batch). Transformer Engine's
`parallel_cross_entropy` does the same as this in Triton, also for ranks, where it is installed.
"""

from collections.abc import Callable, Iterator
from typing import Any, Optional

import torch

# Logits that are fp32 at a time: 1 MiB of them stays in a core's cache; a GPU wants enough rows to
# fill it.
ELEMENTS = 2**18
ELEMENTS_ON_GPU = 2**24

# [n, v] logits, [n, 1] column -> [n] fp32 log of the sum of exponents of each row.
Normaliser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
# [n, v] logits, [n] normaliser, [n] scale: the logits become scale * exp(logits - normaliser).
Softmax = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]


def normaliser(logits_nv: torch.Tensor, column_n1: torch.Tensor) -> torch.Tensor:
    """Log of the sum of the exponents of each row, fp32, by torch's one kernel for log-softmax.

    column_n1: where it is read off; exact to the rounding of the logit there, so a large one.
    """
    log_probs_nv = torch.log_softmax(logits_nv, dim=-1, dtype=torch.float32)
    return logits_nv.gather(-1, column_n1).sub(log_probs_nv.gather(-1, column_n1))[:, 0]


def softmax_in_place(
    logits_nv: torch.Tensor, normaliser_n: torch.Tensor, scale_n: torch.Tensor
) -> None:
    """Turns the logits into scale * exp(logits - normaliser), computed in fp32."""
    probs_nv = logits_nv if logits_nv.dtype == torch.float32 else logits_nv.float()
    probs_nv.sub_(normaliser_n[:, None]).exp_().mul_(scale_n[:, None])
    if probs_nv is not logits_nv:
        logits_nv.copy_(probs_nv)


def vocab_cross_entropy(
    logits: torch.Tensor,
    target: torch.Tensor,
    group: Optional[torch.distributed.ProcessGroup] = None,
    find_normaliser: Normaliser = normaliser,
    write_softmax: Softmax = softmax_in_place,
) -> torch.Tensor:
    """-log p of each target, in fp32. The backward pass overwrites the logits with their gradient.

    The logits must not be used after the backward pass; autograd refuses where it would need them.

    Args:
        logits: [..., v / ranks], the columns of this rank's part of the vocabulary.
        target: ids of the whole vocabulary, [...], the same on all ranks.
        group: ranks that share the vocabulary, in its order; None for one.
        find_normaliser: as `normaliser`.
        write_softmax: as `softmax_in_place`.

    Returns:
        [...], the same on all ranks.
    """
    if group is not None and group.size() == 1:
        group = None
    return _VocabCrossEntropy.apply(
        logits.contiguous(), target, group, find_normaliser, write_softmax
    )


class _VocabCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        whole: torch.Tensor,
        target: torch.Tensor,
        group: Optional[torch.distributed.ProcessGroup],
        find_normaliser: Normaliser,
        write_softmax: Softmax,
    ) -> torch.Tensor:
        logits_nv = whole.flatten(0, -2)
        column_n1, is_ours_n = _own_column(target, whole.shape[-1], group)
        normaliser_n = logits_nv.new_empty(logits_nv.shape[0], dtype=torch.float32)
        for logits, column, result in _in_parts(logits_nv, column_n1, normaliser_n):
            result.copy_(find_normaliser(logits, column))
        chosen_n = logits_nv.gather(-1, column_n1)[:, 0].float() * is_ours_n
        if group is not None:
            normaliser_n, chosen_n = _over_ranks(normaliser_n, chosen_n, group)
        ctx.save_for_backward(whole, column_n1, is_ours_n, normaliser_n)
        ctx.write_softmax = write_softmax
        return (normaliser_n - chosen_n).view(target.shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Optional[torch.Tensor], ...]:
        whole, column_n1, is_ours_n, normaliser_n = ctx.saved_tensors
        logits_nv, grad_n = whole.detach().flatten(0, -2), grad.reshape(-1)
        # What the target's column will hold, from its logit while that is still there.
        chosen_n = logits_nv.gather(-1, column_n1)[:, 0].float()
        chosen_n = (chosen_n.sub_(normaliser_n).exp_() - is_ours_n) * grad_n
        for part in _in_parts(logits_nv, normaliser_n, grad_n):
            ctx.write_softmax(*part)
        logits_nv.scatter_(-1, column_n1, chosen_n[:, None].to(whole.dtype))
        return logits_nv.view(whole.shape), None, None, None, None


def _own_column(
    target: torch.Tensor, columns: int, group: Optional[torch.distributed.ProcessGroup]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Column of each target on this rank (any, where it is another's), [n, 1]; 1 if ours, [n]."""
    local_n = target.reshape(-1) - (0 if group is None else group.rank() * columns)
    is_ours_n = (local_n >= 0) & (local_n < columns)
    return local_n.clamp(0, columns - 1)[:, None], is_ours_n.float()


def _over_ranks(
    normaliser_n: torch.Tensor, chosen_n: torch.Tensor, group: torch.distributed.ProcessGroup
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both over the whole vocabulary, with one collective of two numbers a token and rank."""
    mine = torch.cat((normaliser_n, chosen_n))
    everyone = mine.new_empty(group.size() * mine.shape[0])
    torch.distributed.all_gather_into_tensor(everyone, mine, group=group)
    normaliser_rn, chosen_rn = everyone.view(group.size(), 2, normaliser_n.shape[0]).unbind(1)
    return normaliser_rn.logsumexp(0), chosen_rn.sum(0)


def _in_parts(logits_nv: torch.Tensor, *others: torch.Tensor) -> Iterator[tuple[Any, ...]]:
    """The rows of all tensors, as many at a time as may be fp32."""
    elements = ELEMENTS if logits_nv.device.type == "cpu" else ELEMENTS_ON_GPU
    rows = max(1, elements // logits_nv.shape[1])
    return zip(*(x.split(rows) for x in (logits_nv, *others)), strict=True)
