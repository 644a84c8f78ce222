"""How likely given tokens are to a model that lies on many ranks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from megatron_biollm.generation.forward import (
    broadcast_from_last_stage,
    check_generates,
    forward,
    inference,
    model_device,
)
from megatron_biollm.parallel.parallelize import ParallelModel


@dataclass
class TokenScores:
    """Scores of tokens, each given all before it in its row.

    Attributes:
        log_probs: natural logarithm, over the true vocabulary.
        is_greedy: the token is the likeliest one.
    """

    log_probs: torch.Tensor
    is_greedy: torch.Tensor


def score_tokens(model: ParallelModel, tokens_bs: torch.Tensor, vocab_size: int) -> TokenScores:
    """Scores every token but the first of each row, [b, s-1]; the same on every rank of the model.

    Rows of unequal length are padded at the end: what follows a token does not change its score.
    Data-parallel replicas do not talk to each other. No rank holds logits of the whole vocabulary.

    Args:
        model: any tensor- and pipeline-parallel layout; may be in training.
        tokens_bs: int64 ids, the same on every rank.
        vocab_size: true size; the rows that pad the embedding take no probability.

    Raises:
        UserError: a layout that generation cannot use.
    """
    check_generates(model)
    tokens_bs = tokens_bs.to(model_device(model))
    targets_bs = tokens_bs[:, 1:]
    # One tensor for both results, so that one broadcast tells them.
    scores = torch.zeros((2, *targets_bs.shape), device=tokens_bs.device)
    with inference(model):
        logits_bsv = forward(model, tokens_bs[:, :-1])
        if logits_bsv is not None:
            _score(logits_bsv.float(), targets_bs, vocab_size, model.groups.tp, scores)
        broadcast_from_last_stage(model, scores)
    return TokenScores(scores[0], scores[1] > 0)


def score_places(
    model: ParallelModel,
    tokens_bs: torch.Tensor,
    places: tuple[Sequence[int], Sequence[int]],
    targets: Sequence[int],
    vocab_size: int,
) -> TokenScores:
    """Scores chosen tokens at chosen places, [n]; a place may be asked about several tokens.

    As `score_tokens`, but logits are made at these places only, and rows that differ in their last
    token alone are run once.

    Args:
        model: any tensor- and pipeline-parallel layout; may be in training.
        tokens_bs: int64 ids, the same on every rank, padded at the end.
        places: rows and columns; the token after row r, column c is judged.
        targets: the tokens judged, one for each place.
        vocab_size: true size.

    Raises:
        UserError: a layout that generation cannot use.
    """
    check_generates(model)
    device = model_device(model)
    rows_n, columns_n = (torch.tensor(index, device=device) for index in places)
    scores = torch.zeros((2, len(targets)), device=device)
    with inference(model):
        logits_nv = forward(model, tokens_bs.to(device), places=(rows_n, columns_n))
        if logits_nv is not None:
            targets_n = torch.tensor(targets, device=device)
            _score(logits_nv.float(), targets_n, vocab_size, model.groups.tp, scores)
        broadcast_from_last_stage(model, scores)
    return TokenScores(scores[0], scores[1] > 0)


def _score(
    logits_bsv: torch.Tensor,
    targets_bs: torch.Tensor,
    vocab_size: int,
    tp_group: torch.distributed.ProcessGroup,
    scores: torch.Tensor,
) -> None:
    """Fills `scores` from this rank's share of the logits, [b, s, v/tp] or [n, v/tp]."""
    share = logits_bsv.shape[-1]
    first = tp_group.rank() * share
    logits_bsv[..., max(vocab_size - first, 0) :] = float("-inf")
    largest_bs = _reduced(logits_bsv.amax(-1), torch.distributed.ReduceOp.MAX, tp_group)
    local_bs = targets_bs - first
    mine_bs = (local_bs >= 0) & (local_bs < share)
    own_bs = logits_bsv.gather(-1, local_bs.clamp(0, share - 1)[..., None])[..., 0]
    target_bs = torch.where(mine_bs, own_bs, float("-inf"))
    target_bs = _reduced(target_bs, torch.distributed.ReduceOp.MAX, tp_group)
    exponents_bs = logits_bsv.sub_(largest_bs[..., None]).exp_().sum(-1)
    total_bs = _reduced(exponents_bs, torch.distributed.ReduceOp.SUM, tp_group)
    scores[0] = target_bs - largest_bs - total_bs.log()
    scores[1] = target_bs == largest_bs


def _reduced(
    values: torch.Tensor,
    operation: torch.distributed.ReduceOp,
    group: torch.distributed.ProcessGroup,
) -> torch.Tensor:
    values = values.contiguous()
    torch.distributed.all_reduce(values, op=operation, group=group)
    return values
