"""One number per token in place of the output layer: what a reward model scores with."""

from typing import Any, Optional

import torch
from megatron.core.dist_checkpointing.mapping import ShardedTensor
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.utils import make_sharded_tensor_for_checkpoint

SCALAR_HEAD_KEY = "reward_head.weight"


class ScalarHead(torch.nn.Module):
    """A linear layer to one number without bias, the same on every tensor-parallel rank.

    In a checkpoint it has a key of its own, so that a language model's checkpoint is known to lack
    it, and its output layer is not taken for it.
    """

    def __init__(self, config: TransformerConfig, groups: ProcessGroupCollection) -> None:
        super().__init__()
        self.groups, self.sequence_parallel = groups, config.sequence_parallel
        self.weight = torch.nn.Parameter(
            torch.empty(1, config.hidden_size, dtype=config.params_dtype)
        )
        # Each rank has scored its part of the sequence only, so core adds their gradients up.
        self.weight.sequence_parallel = config.sequence_parallel

    def forward(self, hidden_sbh: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, None]:
        """fp32 [s, b, 1], of the whole sequence also where this rank has a part of it."""
        scores = torch.nn.functional.linear(hidden_sbh.float(), self.weight.float())
        if self.sequence_parallel:
            # What follows is the same on every rank, so each takes its part of the gradient.
            scores = gather_from_sequence_parallel_region(
                scores, tensor_parallel_output_grad=False, group=self.groups.tp
            )
        return scores, None

    def sharded_state_dict(
        self,
        prefix: str = "",
        sharded_offsets: tuple = (),
        metadata: Optional[dict[str, Any]] = None,
    ) -> dict[str, ShardedTensor]:
        """The weight under its name in the model, with its own key in the checkpoint."""
        whole = make_sharded_tensor_for_checkpoint(
            self.weight,
            SCALAR_HEAD_KEY,
            prepend_offsets=sharded_offsets,
            tp_group=self.groups.tp,
            dp_cp_group=self.groups.dp_cp,
        )
        return {f"{prefix}weight": whole}
