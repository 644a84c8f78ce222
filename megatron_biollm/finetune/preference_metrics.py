"""What a preference run reports, under TRL's names where it has them.

A metric is a sum and a weight, so that those of micro-batches and ranks add up; the quotient of
both totals is what is logged.
"""

import torch

from megatron_biollm.finetune.preference_loss import PairLogps

Metrics = dict[str, tuple[torch.Tensor, torch.Tensor]]

KTO_METRICS = (
    "rewards/chosen",
    "rewards/rejected",
    "logps/chosen",
    "logps/rejected",
    "logps/chosen_falling",
    "lengths/chosen",
    "lengths/rejected",
    "kl",
)
PAIR_METRICS = (*KTO_METRICS, "rewards/margins", "rewards/accuracies")
REWARD_METRICS = ("accuracy", "margin", "mean_reward", "rewards/chosen", "rewards/rejected")


def pair_metrics(logps: PairLogps, beta: float) -> Metrics:
    """Means over pairs.

    - rewards/chosen, rewards/rejected: beta h, the implicit reward of an answer.
    - rewards/margins: chosen less rejected. rewards/accuracies: share where chosen is above.
    - logps/chosen, logps/rejected: log p of whole answers.
    - logps/chosen_falling: share of chosen answers less probable than under the reference; DPO may
      win by lowering both, and this is where that shows.
    - lengths/chosen, lengths/rejected: answer tokens.
    - kl: log pi - log pi_ref, mean of both answers, in nats: KTO's estimate of the divergence on
      answers that are given, not drawn from the model. Below 0 where they became less probable.
    """
    chosen, rejected = logps.chosen_ratio.detach(), logps.rejected_ratio.detach()
    rows = {
        "rewards/chosen": beta * chosen,
        "rewards/rejected": beta * rejected,
        "rewards/margins": beta * (chosen - rejected),
        "rewards/accuracies": chosen > rejected,
        "logps/chosen": logps.chosen.detach(),
        "logps/rejected": logps.rejected.detach(),
        "logps/chosen_falling": chosen < 0,
        "lengths/chosen": logps.chosen_tokens,
        "lengths/rejected": logps.rejected_tokens,
        "kl": (chosen + rejected) / 2,
    }
    return _means(rows)


def kto_metrics(
    logps: torch.Tensor,
    reference: torch.Tensor,
    tokens: torch.Tensor,
    desirable: torch.Tensor,
    divergence: torch.Tensor,
    beta: float,
) -> Metrics:
    """Means over the answers labelled good (chosen) and bad (rejected), as in `pair_metrics`.

    kl is KTO's z0. All but that [answers].
    """
    ratio = (logps - reference).detach()
    rows = {
        "rewards/chosen": (beta * ratio, desirable),
        "rewards/rejected": (beta * ratio, ~desirable),
        "logps/chosen": (logps.detach(), desirable),
        "logps/rejected": (logps.detach(), ~desirable),
        "logps/chosen_falling": (ratio < 0, desirable),
        "lengths/chosen": (tokens, desirable),
        "lengths/rejected": (tokens, ~desirable),
        "kl": (divergence.expand_as(ratio), torch.ones_like(desirable)),
    }
    return {name: _sum_and_weight(*row) for name, row in rows.items()}


def reward_metrics(chosen: torch.Tensor, rejected: torch.Tensor) -> Metrics:
    """Means over pairs of a reward model's scores; the first three have TRL's names."""
    chosen, rejected = chosen.detach(), rejected.detach()
    rows = {
        "accuracy": chosen > rejected,
        "margin": chosen - rejected,
        "mean_reward": (chosen + rejected) / 2,
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
    }
    return _means(rows)


def _means(rows: dict[str, torch.Tensor]) -> Metrics:
    return {name: _sum_and_weight(row, torch.ones_like(row)) for name, row in rows.items()}


def _sum_and_weight(
    values: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    weights = weights.double()
    return (values.double() * weights).sum(), weights.sum()
