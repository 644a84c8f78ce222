"""Low-rank adapters beside core's linear layers (LoRA, Hu et al. 2021, arxiv.org/abs/2106.09685).

The layer `linear_x` gets a sibling `linear_x_lora`, whose output is added to its own. The layer
itself stays what it is, under its names in the model and in checkpoints, so that neither core nor
any other part needs to know of adapters, and any checkpoint is a start for them.

Shapes below: s sequence (a part of it under sequence parallelism), b batch, r rank.
"""

from collections.abc import Callable, Iterator
from typing import Any, Optional

import torch
from megatron.core.models.gpt import GPTModel
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
    set_tensor_model_parallel_attributes,
)
from megatron.core.transformer.mlp import apply_swiglu_sharded_factory
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint
from torch.nn.functional import linear, rms_norm

from megatron_biollm.model.lora_config import TARGETS, LoraConfig, adapter_name

# Cut by rows under tensor parallelism; the others by columns.
_BY_ROWS = ("linear_qkv", "linear_fc1")
# Two matrices in one, each cut by itself.
_GATED = "linear_fc1"

# Gives A or B of a layer's path (`mlp.linear_fc1`) and number from 0, as whole matrices.
ReadAdapter = Callable[[str, int], tuple[torch.Tensor, torch.Tensor]]


class Adapter(torch.nn.Module):
    """`scale * B A x`, cut as the layer is under tensor parallelism.

    By rows B is cut, by columns A, and the other is the same on every rank. What the layer sends
    of its whole input or output is sent between the two, so of r numbers per token.
    """

    def __init__(
        self,
        layer: torch.nn.Module,
        name: str,
        lora: LoraConfig,
        config: TransformerConfig,
        groups: ProcessGroupCollection,
    ) -> None:
        super().__init__()
        rows, columns = layer.weight.shape
        like = {"dtype": layer.weight.dtype, "device": layer.weight.device}
        self.a = torch.nn.Parameter(torch.empty(lora.rank, columns, **like))
        self.b = torch.nn.Parameter(torch.empty(rows, lora.rank, **like))
        self.scale, self.groups = lora.scale, groups
        self.by_rows, self.gated = name in _BY_ROWS, name == _GATED
        self.sequence_parallel = config.sequence_parallel
        cut, whole = (self.b, self.a) if self.by_rows else (self.a, self.b)
        # Core counts what is not marked once in the norm of the gradient ...
        set_tensor_model_parallel_attributes(cut, True, 0 if self.by_rows else 1, 1)
        # ... and adds up over the ranks what each has seen its part of the sequence of.
        whole.sequence_parallel = config.sequence_parallel

    def forward(self, x_sbh: torch.Tensor) -> torch.Tensor:
        """What is added to the layer's output, from the layer's input."""
        return linear(self._shared(linear(x_sbh, self.a)), self.b) * self.scale

    def _shared(self, low_sbr: torch.Tensor) -> torch.Tensor:
        group = self.groups.tp
        if self.by_rows and self.sequence_parallel:
            return gather_from_sequence_parallel_region(low_sbr, group=group)
        if self.by_rows:
            return copy_to_tensor_model_parallel_region(low_sbr, group=group)
        if self.sequence_parallel:
            return reduce_scatter_to_sequence_parallel_region(low_sbr, group=group)
        return reduce_from_tensor_model_parallel_region(low_sbr, group=group)

    def sharded_state_dict(
        self,
        prefix: str = "",
        sharded_offsets: tuple = (),
        metadata: Optional[dict[str, Any]] = None,
    ) -> dict[str, Any]:
        """A and B by their names in the model; B's rows are those of the layer's weight."""
        state = make_sharded_tensors_for_checkpoint(
            {"a": self.a, "b": self.b},
            prefix,
            {"b": 0} if self.by_rows else {"a": 1},
            sharded_offsets,
            tp_group=self.groups.tp,
            dp_cp_group=self.groups.dp_cp,
        )
        if self.gated:
            name = f"{prefix}b"
            state[name] = apply_swiglu_sharded_factory(state[name], sharded_offsets)
        return state


def add_adapters(
    model: GPTModel, lora: LoraConfig, config: TransformerConfig, groups: ProcessGroupCollection
) -> None:
    """Freezes the model, and puts adapters beside the layers that `lora` names."""
    model.requires_grad_(False)
    for _, path, layer in list(_layers(model, lora)):
        parent, _, name = path.rpartition(".")
        adapter = Adapter(layer, name, lora, config, groups)
        owner = model.get_submodule(parent)
        owner.add_module(adapter_name(name), adapter)
        layer.register_forward_hook(_plus(adapter))
    if model.pre_process:
        model.embedding.register_forward_hook(_begin_gradients)


@torch.no_grad()
def merge_adapters(
    model: GPTModel, lora: LoraConfig, read: ReadAdapter, groups: ProcessGroupCollection
) -> None:
    """Adds `scale * B A` to this rank's part of every matrix that `lora` names."""
    rank, size = groups.tp.rank(), groups.tp.size()
    for number, path, layer in _layers(model, lora):
        name = path.rpartition(".")[2]
        a, b = (each.to(layer.weight.device) for each in read(TARGETS[name], number))
        if name not in _BY_ROWS:
            a = a.chunk(size, dim=1)[rank]
        elif name == _GATED:
            b = torch.cat([half.chunk(size)[rank] for half in b.chunk(2)])
        else:
            b = b.chunk(size)[rank]
        layer.weight.copy_(lora.merged(layer.weight, a, b))


def _layers(model: GPTModel, lora: LoraConfig) -> Iterator[tuple[int, str, torch.nn.Module]]:
    """Number in the whole model (from 0), path in this chunk, and module of each target."""
    for index, layer in enumerate(model.decoder.layers):
        for name in lora.target_modules:
            path = f"decoder.layers.{index}.{TARGETS[name]}"
            yield layer.layer_number - 1, path, model.get_submodule(path)


def _plus(adapter: Adapter) -> Callable:
    def add(layer: torch.nn.Module, inputs: tuple, output: tuple) -> tuple:
        return output[0] + adapter(_normed(layer, inputs[0])), *output[1:]

    return add


def _normed(layer: torch.nn.Module, x_sbh: torch.Tensor) -> torch.Tensor:
    """What the layer multiplies: Transformer Engine's have the norm before them inside."""
    weight = getattr(layer, "layer_norm_weight", None)
    return x_sbh if weight is None else rms_norm(x_sbh, weight.shape, weight, layer.eps)


def _begin_gradients(embedding: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
    # Core recomputes a layer in the backward pass only where something before it needs gradients.
    if torch.is_grad_enabled():
        output.requires_grad_()
