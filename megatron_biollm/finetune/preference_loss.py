"""Preference losses as pure functions of log-probabilities of whole answers.

Notation of the papers: for a prompt with answers w (chosen) and l (rejected), h = log pi - log
pi_ref of an answer, summed over its tokens, and Delta = h_w - h_l. Every function gives one loss a
pair (or an answer) and leaves the division by their global number to the caller, so that neither
micro-batches nor ranks change the result. Names are those of TRL's `loss_type` where it has them.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

from megatron_biollm.config import UserError
from megatron_biollm.finetune.preference_config import PreferenceLossConfig


@dataclass
class PairLogps:
    """Log-probabilities of the two answers of each pair, summed over answer tokens; all [pairs].

    Attributes:
        chosen, rejected: by the model that is trained.
        reference_chosen, reference_rejected: by the reference model.
        chosen_tokens, rejected_tokens: answer tokens, stop token included.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    reference_chosen: torch.Tensor
    reference_rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor

    @property
    def chosen_ratio(self) -> torch.Tensor:
        """h_w."""
        return self.chosen - self.reference_chosen

    @property
    def rejected_ratio(self) -> torch.Tensor:
        """h_l."""
        return self.rejected - self.reference_rejected

    @property
    def delta(self) -> torch.Tensor:
        """Delta of whole answers."""
        return self.chosen_ratio - self.rejected_ratio

    @property
    def delta_per_token(self) -> torch.Tensor:
        """Delta of averages over each answer's tokens."""
        chosen = self.chosen_ratio / self.chosen_tokens.clamp(min=1)
        return chosen - self.rejected_ratio / self.rejected_tokens.clamp(min=1)


def pair_losses(logps: PairLogps, config: PreferenceLossConfig) -> torch.Tensor:
    """The loss of every pair, SFT term included; [pairs].

    - sigmoid: DPO, -log sigma(beta Delta) (Rafailov et al. 2023,
      https://arxiv.org/abs/2305.18290).
    - cdpo: conservative DPO, -(1-e) log sigma(beta Delta) - e log sigma(-beta Delta) (Mitchell
      2023, https://ericmitchell.ai/cdpo.pdf), which TRL had as `label_smoothing` of sigmoid.
    - robust: unbiased under flipped labels, (-(1-e) log sigma(beta Delta) + e log sigma(-beta
      Delta)) / (1-2e) (Chowdhury et al. 2024, https://arxiv.org/abs/2403.00409).
    - ipo: (Delta' - 1/(2 beta))^2 (Azar et al. 2023, https://arxiv.org/abs/2310.12036) of averages
      per token, as TRL does; ipo_sum takes the sums of the paper's formula, as OpenRLHF does.
    - sigmoid_norm: DPO of averages per token (Lambert et al. 2024, Tulu 3,
      https://arxiv.org/abs/2411.15124).
    - hinge: max(0, 1 - beta Delta) (Zhao et al. 2023, SLiC-HF, https://arxiv.org/abs/2305.10425).

    Raises:
        UserError: a loss that does not work on pairs.
    """
    beta, smoothing, name = config.beta, config.label_smoothing, config.loss_type
    delta = logps.delta_per_token if name in ("ipo", "sigmoid_norm") else logps.delta
    if name in ("sigmoid", "sigmoid_norm"):
        losses = -logsigmoid(beta * delta)
    elif name == "cdpo":
        losses = -(1 - smoothing) * logsigmoid(beta * delta) - smoothing * logsigmoid(-beta * delta)
    elif name == "robust":
        kept = -(1 - smoothing) * logsigmoid(beta * delta)
        losses = (kept + smoothing * logsigmoid(-beta * delta)) / (1 - 2 * smoothing)
    elif name in ("ipo", "ipo_sum"):
        losses = (delta - 1 / (2 * beta)) ** 2
    elif name == "hinge":
        losses = torch.relu(1 - beta * delta)
    else:
        raise UserError(f"finetune.loss_type={name} does not work on pairs; use kto_losses")
    if config.sft_weight:
        losses = losses + config.sft_weight * sft_losses(logps.chosen, logps.chosen_tokens)
    return losses


def sft_losses(logps: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """-log p per token of every answer (Pang et al. 2024, https://arxiv.org/abs/2404.19733); [n].

    Each pair weighs the same; TRL's `sft` weighs every token of a batch the same, which is the same
    number for answers of one length.
    """
    return -logps / tokens.clamp(min=1)


def kto_losses(
    logps: torch.Tensor,
    reference: torch.Tensor,
    desirable: torch.Tensor,
    divergence: torch.Tensor,
    config: PreferenceLossConfig,
) -> torch.Tensor:
    """KTO of answers that are each labelled good or bad (Ethayarajh et al. 2024,
    https://arxiv.org/abs/2402.01306, eq. 7-8); [answers].

    lambda_D (1 - sigma(beta (h - z0))) for good ones, lambda_U (1 - sigma(beta (z0 - h))) for bad.

    Args:
        logps: of whole answers by the model that is trained, [answers].
        reference: the same by the reference model.
        desirable: true where the answer is labelled good.
        divergence: z0 of `kto_divergence`; no gradient flows through it.
        config: its beta and its two weights are used.
    """
    ahead = config.beta * (logps - reference - divergence.detach())
    signed = torch.where(desirable, ahead, -ahead)
    good = desirable.to(logps.dtype)
    weights = config.desirable_weight * good + config.undesirable_weight * (1 - good)
    return weights * (1 - torch.sigmoid(signed))


def kto_divergence(logps: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """z0 of KTO: the divergence from the reference, by prompts joined with others' answers.

    Args:
        logps: of the mismatched answers of a whole batch by the model that is trained.
        reference: the same by the reference model.
    """
    return (logps - reference).mean().clamp(min=0).detach()


def reward_losses(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    margin: torch.Tensor | float = 0.0,
    center_weight: float = 0.0,
) -> torch.Tensor:
    """-log sigma(r_w - r_l - margin) + c (r_w + r_l)^2 of every pair; [pairs].

    The first term is of Ouyang et al. 2022 (https://arxiv.org/abs/2203.02155), the margin of
    Llama 2 (https://arxiv.org/abs/2307.09288), the second term, which keeps rewards around 0, of
    Eisenstein et al. 2023 (https://arxiv.org/abs/2312.09244).
    """
    losses = -logsigmoid(chosen - rejected - margin)
    return losses + center_weight * (chosen + rejected) ** 2 if center_weight else losses
