"""Core's `GPTModel` from sizes, core's configuration, layers and groups."""

from collections.abc import Callable
from typing import Optional

import torch
from megatron.core.models.gpt import GPTModel
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron_biollm.model.config import ModelConfig
from megatron_biollm.model.lora import add_adapters
from megatron_biollm.model.lora_config import LoraConfig
from megatron_biollm.model.spec import build_block_spec

# Makes what takes the place of the output layer, called like it: hidden states [s, b, h] (this
# rank's part of s under sequence parallelism) and keywords in; (output [s, b, width], None) out.
# Its `sharded_state_dict` gives the weight under the output layer's name, as core expects, in a
# ShardedTensor with a key of its own.
Head = Callable[[TransformerConfig, ProcessGroupCollection], torch.nn.Module]


def build_gpt(
    sizes: ModelConfig,
    config: TransformerConfig,
    transformer_impl: str,
    groups: ProcessGroupCollection,
    pre_process: bool = True,
    post_process: bool = True,
    vp_stage: Optional[int] = None,
    head: Optional[Head] = None,
    lora: Optional[LoraConfig] = None,
) -> GPTModel:
    """One model chunk: embedding if `pre_process`, output layer if `post_process`.

    Args:
        sizes: the network.
        config: core's configuration, which holds the degrees.
        transformer_impl: `transformer_engine` or `local`.
        groups: process groups of this rank.
        pre_process: this chunk is the first of the pipeline.
        post_process: this chunk is the last of the pipeline.
        vp_stage: index of the chunk on this rank, None without interleaving.
        head: takes the place of the output layer; without labels the model gives its output,
            [b, s, width].
        lora: adapters, which are then all that is trained besides `head`; None adds none.
    """
    model = GPTModel(
        config=config,
        transformer_layer_spec=build_block_spec(transformer_impl, config, vp_stage),
        vocab_size=sizes.padded_vocab_size,
        max_sequence_length=sizes.max_position_embeddings,
        pre_process=pre_process,
        post_process=post_process,
        share_embeddings_and_output_weights=False,
        position_embedding_type="rope",
        rotary_base=sizes.rotary_base,
        pg_collection=groups,
        vp_stage=vp_stage,
    )
    if lora is not None:
        add_adapters(model, lora, config, groups)
    if head is not None and post_process:
        model.output_layer = head(config, groups)
    return model
