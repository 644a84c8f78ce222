"""What preference tuning trains for, in any layout: pairs, labelled answers, rewards.

A sample's rows lie in one micro-batch. The model gives -log p of each label; answers are summed in
fp64, over context-parallel ranks too, before anything that is not linear, and the step divides by
the number of samples of the whole global batch.
"""

from typing import Any

import torch
from torch.distributed import ProcessGroup

from megatron_biollm.finetune.preference_config import PreferenceLossConfig
from megatron_biollm.finetune.preference_loss import (
    PairLogps,
    kto_losses,
    pair_losses,
    reward_losses,
)
from megatron_biollm.finetune.preference_metrics import (
    KTO_METRICS,
    PAIR_METRICS,
    REWARD_METRICS,
    Metrics,
    kto_metrics,
    pair_metrics,
    reward_metrics,
)
from megatron_biollm.training.objective import MODEL_INPUTS, Batch, Objective, Outcome
from megatron_biollm.training.step import Trainer


class AnswerLogps(Objective):
    """Puts out log p of the answers of every sample, float64 [b, rows]; there is nothing to learn.

    rows: which of a sample's two rows the model sees.
    """

    def __init__(self, rows: tuple[int, ...] = (0, 1)) -> None:
        self.rows, self.rows_per_sample = list(rows), len(rows)

    def inputs(self, batch: Batch) -> Batch:
        """The rows one below the other, [b * rows, s], those of a sample together."""
        rows = {name: batch[name][:, self.rows].flatten(0, 1) for name in MODEL_INPUTS}
        return rows | {name: batch[name] for name in self.per_sample()}

    def per_sample(self) -> tuple[str, ...]:
        """What else goes to the device."""
        return ()

    def outcome(self, output: torch.Tensor, batch: Batch, groups: Any) -> Outcome:
        logps, _ = answer_logps(output, batch["loss_mask"], groups.cp)
        logps = logps.view(-1, self.rows_per_sample)
        count = torch.zeros((), dtype=torch.int, device=logps.device)
        return Outcome(output.sum() * 0.0, count, outputs={"logps": logps})


class PairObjective(AnswerLogps):
    """DPO and its kin on pairs; row 0 is chosen, row 1 rejected."""

    metrics = PAIR_METRICS

    def __init__(self, config: PreferenceLossConfig) -> None:
        super().__init__()
        self.config = config

    def per_sample(self) -> tuple[str, ...]:
        return ("reference",)

    def outcome(self, output: torch.Tensor, batch: Batch, groups: Any) -> Outcome:
        logps, tokens = answer_logps(output, batch["loss_mask"], groups.cp)
        columns = [x.view(-1, 2).unbind(1) for x in (logps, batch["reference"], tokens)]
        pairs = PairLogps(*(row for two in columns for row in two))
        losses = pair_losses(pairs, self.config)
        return averaged(losses, pair_metrics(pairs, self.config.beta), groups.cp)


class KtoObjective(AnswerLogps):
    """KTO on labelled answers, which are row 0; row 1 is an answer to another prompt.

    z0 is that of the whole global batch, from a forward pass of its own before the step. TRL takes
    that of each micro-batch, on which its gradient thus depends.
    """

    metrics = KTO_METRICS

    def __init__(self, config: PreferenceLossConfig) -> None:
        super().__init__(rows=(0,))
        self.config = config

    def per_sample(self) -> tuple[str, ...]:
        return ("reference", "label", "divergence")

    def prepared(self, trainer: Trainer, batches: list[Batch]) -> list[Batch]:
        """The batches with z0 in each."""
        found = trainer.outputs_of(AnswerLogps(rows=(1,)), batches)
        groups = trainer.model.groups
        total = torch.zeros(2, dtype=torch.float64, device=trainer.device)
        for output, batch in zip(found, batches, strict=False):  # none before the last stage
            ratio = output["logps"][:, 0] - batch["reference"][:, 1].to(trainer.device)
            total += torch.stack([ratio.sum(), total.new_tensor(len(ratio))])
        torch.distributed.all_reduce(total, group=groups.dp)
        last = torch.distributed.get_process_group_ranks(groups.pp)[-1]
        torch.distributed.broadcast(total, src=last, group=groups.pp)
        divergence = (total[0] / total[1]).clamp(min=0)
        return [batch | {"divergence": divergence} for batch in batches]

    def outcome(self, output: torch.Tensor, batch: Batch, groups: Any) -> Outcome:
        logps, tokens = answer_logps(output, batch["loss_mask"], groups.cp)
        reference, label, divergence = batch["reference"][:, 0], batch["label"], batch["divergence"]
        losses = kto_losses(logps, reference, label, divergence, self.config)
        beta = self.config.beta
        metrics = kto_metrics(logps, reference, tokens, label, divergence, beta)
        return averaged(losses, metrics, groups.cp)


class Scores(AnswerLogps):
    """Puts out the reward of each row, float64 [b, rows]: the scalar head's at its last token."""

    def inputs(self, batch: Batch) -> Batch:
        found = super().inputs(batch)
        ends = batch["length"][:, self.rows].flatten()[:, None] - 1
        place = torch.arange(found["tokens"].shape[1])
        # A mask and no index: it is cut like the tokens under context parallelism.
        return found | {"loss_mask": (place == ends).to(torch.float32)}

    def forward(self, chunk: torch.nn.Module, batch: Batch, **extra: Any) -> torch.Tensor:
        """On the last stage the score of every token, [rows, s, 1]."""
        return chunk(batch["tokens"], batch["position_ids"], None, **extra)

    def outcome(self, output: torch.Tensor, batch: Batch, groups: Any) -> Outcome:
        scores = self.scores(output, batch, groups)
        count = torch.zeros((), dtype=torch.int, device=output.device)
        return Outcome(output.sum() * 0.0, count, outputs={"scores": scores})

    def scores(self, output: torch.Tensor, batch: Batch, groups: Any) -> torch.Tensor:
        """[b, rows]"""
        found, _ = masked_sums(output[..., 0], batch["loss_mask"], groups.cp)
        return found.view(-1, self.rows_per_sample)


class RewardObjective(Scores):
    """The pairwise loss of a reward model.

    center_weight: of (r_w + r_l)^2. use_margin: a pair's `margin` is to be kept between rewards.
    """

    metrics = REWARD_METRICS

    def __init__(self, center_weight: float = 0.0, use_margin: bool = False) -> None:
        super().__init__()
        self.center_weight, self.use_margin = center_weight, use_margin

    def per_sample(self) -> tuple[str, ...]:
        return ("margin",)

    def outcome(self, output: torch.Tensor, batch: Batch, groups: Any) -> Outcome:
        chosen, rejected = self.scores(output, batch, groups).unbind(1)
        margin = batch["margin"] if self.use_margin else 0.0
        losses = reward_losses(chosen, rejected, margin, self.center_weight)
        return averaged(losses, reward_metrics(chosen, rejected), groups.cp)


def answer_logps(
    token_loss: torch.Tensor, loss_mask: torch.Tensor, cp: ProcessGroup
) -> tuple[torch.Tensor, torch.Tensor]:
    """log p of each row's answer and its number of tokens; float64 [rows].

    Args:
        token_loss: -log p of each label, [rows, s].
        loss_mask: 1 where the label belongs to the answer, [rows, s].
        cp: context-parallel group, each rank of which holds a part of s.
    """
    sums, counts = masked_sums(token_loss, loss_mask, cp)
    return -sums, counts


def masked_sums(
    values: torch.Tensor, mask: torch.Tensor, cp: ProcessGroup
) -> tuple[torch.Tensor, torch.Tensor]:
    """Per row the sum of the values where the mask is 1, and their number; float64 [rows]."""
    mask = mask.double()
    # What is masked may be anything, infinity too, and must stay out of the gradient.
    kept = torch.where(mask > 0, values.double(), 0.0)
    sums, counts = kept.sum(1), mask.sum(1)
    if cp.size() > 1:
        sums = _SumOverRanks.apply(sums, cp)
        torch.distributed.all_reduce(counts, group=cp)
    return sums, counts


def averaged(losses: torch.Tensor, metrics: Metrics, cp: ProcessGroup) -> Outcome:
    """The outcome of losses that the step is to average over samples.

    Every context-parallel rank has all the losses and needs their gradient; one of them counts.
    """
    loss = losses.sum().float()
    count = torch.tensor(len(losses), dtype=torch.int, device=losses.device)
    if cp.rank() > 0:
        loss, count = loss - loss.detach(), count * 0
        metrics = {name: (total * 0, weight * 0) for name, (total, weight) in metrics.items()}
    return Outcome(loss, count, metrics)


class _SumOverRanks(torch.autograd.Function):
    """The sum over a group; each rank's part has the gradient of the sum."""

    @staticmethod
    def forward(context: Any, part: torch.Tensor, group: ProcessGroup) -> torch.Tensor:
        whole = part.clone()
        torch.distributed.all_reduce(whole, group=group)
        return whole

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None
