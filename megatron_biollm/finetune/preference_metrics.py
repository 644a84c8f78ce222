"""What a preference run reports, under TRL's names where it has them.

Every value is a sum over pairs or answers, so that sums of micro-batches and ranks add up; a mean
is what comes of dividing by their number.
"""

import torch

from megatron_biollm.finetune.preference_loss import PairLogps


def pair_metrics(logps: PairLogps, beta: float) -> dict[str, torch.Tensor]:
    """Sums over the pairs, fp64 scalars; divide by the number of pairs.

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
    return {name: row.double().sum() for name, row in rows.items()}


def reward_metrics(chosen: torch.Tensor, rejected: torch.Tensor) -> dict[str, torch.Tensor]:
    """Sums over pairs of a reward model's scores; `accuracy` and `margin` are TRL's names."""
    chosen, rejected = chosen.detach(), rejected.detach()
    rows = {
        "accuracy": chosen > rejected,
        "margin": chosen - rejected,
        "mean_reward": (chosen + rejected) / 2,
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
    }
    return {name: row.double().sum() for name, row in rows.items()}
