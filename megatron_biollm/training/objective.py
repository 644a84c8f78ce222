"""What a recipe trains for: from a micro-batch to a sum over what counts, and how much counts.

The training step, its schedules and its layouts know no recipe. An objective says which tensors go
to the model, and turns what the model gives into a sum; the step divides once by the count of the
whole global batch, so that neither the layout nor the micro-batch size changes the gradient.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

Batch = dict[str, torch.Tensor]
MODEL_INPUTS = ("tokens", "labels", "loss_mask", "position_ids")


@dataclass
class Outcome:
    """Of one micro-batch on a rank of the last pipeline stage.

    Attributes:
        loss: summed over what counts, with its gradient; a scalar.
        count: how much counts (tokens, pairs, ...), int32. Over all data- and context-parallel
            ranks it divides both the loss and the gradient.
        metrics: (sum, weight) of each metric by name; over the global batch the metric is the
            quotient of both sums. Every name of `Objective.metrics`, and no other.
        outputs: what `Trainer.outputs` hands out, of this micro-batch alone.
    """

    loss: torch.Tensor
    count: torch.Tensor
    metrics: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    outputs: Batch = field(default_factory=dict)


class Objective:
    """Causal language modelling: the sum of -log p over the tokens that `loss_mask` counts.

    Other objectives derive from this one.

    Attributes:
        rows_per_sample: sequences that the model sees for one sample of the stream.
        metrics: names of what is logged beside the loss, in a fixed order.
    """

    rows_per_sample: int = 1
    metrics: tuple[str, ...] = ()

    def prepared(self, trainer: Any, batches: list[Batch]) -> list[Batch]:
        """The micro-batches of a step, with what the objective must know of all of them first.

        Args:
            trainer: the `Trainer`, whose `outputs_of` runs the model forward.
            batches: of this rank, as collated; every rank is asked at once.
        """
        return batches

    def inputs(self, batch: Batch) -> Batch:
        """What goes to the device, from a collated micro-batch on the CPU.

        Tensors shaped like `tokens`, [b * rows_per_sample, s], are laid end to end where documents
        are packed, and cut along s under context parallelism; others arrive as they are.
        """
        return {name: batch[name] for name in MODEL_INPUTS}

    def forward(self, chunk: torch.nn.Module, batch: Batch, **extra: Any) -> torch.Tensor:
        """The chunk's output; on the last stage -log p of each label, shaped like `labels`.

        batch: as `inputs` gave it. extra: for the model, `packed_seq_params` among it.
        """
        return chunk(batch["tokens"], batch["position_ids"], None, labels=batch["labels"], **extra)

    def outcome(self, output: torch.Tensor, batch: Batch, groups: Any) -> Outcome:
        """From the last chunk's output; `groups` are this rank's process groups."""
        loss, tokens = masked_sum(output, batch["loss_mask"])
        return Outcome(loss, tokens.to(torch.int))


def masked_sum(values: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of the values where the mask is 1, and the number of these; both fp32."""
    mask = mask.reshape(-1).float()
    return (values.float().reshape(-1) * mask).sum(), mask.sum()


def as_core_wants(
    outcome: Outcome, names: Iterable[str]
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """The outcome as core's schedules take it under `calculate_per_token_loss`.

    The third part is for the log: `totals` holds loss, count and each metric's sum and weight as
    fp64, since fp32 sums of many micro-batches would show in the sixth digit.
    """
    pairs = [(outcome.loss, outcome.count), *(outcome.metrics[name] for name in names)]
    totals = torch.stack([value.detach().double() for pair in pairs for value in pair])
    return outcome.loss, outcome.count, {"totals": totals, **outcome.outputs}
