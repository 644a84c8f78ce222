"""Core's side of a conversion's parity check; importing it loads megatron-core."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from megatron_biollm.checkpoint.stream import CheckpointReader
from megatron_biollm.conversion.layered import MegatronModel
from megatron_biollm.conversion.streamed import Blockwise
from megatron_biollm.device.runtime import select_device
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.model.gpt import build_gpt
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.parallel.parallelize import transformer_config
from megatron_biollm.parallel.process_groups import create_process_groups, destroy_process_groups


@contextmanager
def core_model(
    reader: CheckpointReader,
    sizes: ModelConfig,
    rounded_to: torch.dtype | None = None,
    blocks: Blockwise | None = None,
    arrive: Callable[[str], None] = lambda name: None,
    kind: type[MegatronModel] = MegatronModel,
) -> Iterator[MegatronModel]:
    """Core's model in this one process, on the CPU; core leaves with the block.

    rounded_to, blocks, arrive: as for MegatronModel. kind: which of these to make.
    """
    device, parallel = select_device("cpu"), ParallelConfig()
    one_layer = dataclasses.replace(sizes, preset=None, num_layers=1)
    with device.core_context():
        device.init_distributed(parallel.distributed_timeout_minutes)
        try:
            groups = create_process_groups(parallel)
            core = transformer_config(one_layer, parallel, device.kind, "local", bf16=False)
            core.perform_initialization = False  # nothing reads it, and drawing it takes long

            def build(with_output: bool) -> torch.nn.Module:
                return build_gpt(
                    one_layer, core, "local", groups, pre_process=False, post_process=with_output
                )

            yield kind(reader, sizes, build, rounded_to, blocks, arrive)
        finally:
            destroy_process_groups()
