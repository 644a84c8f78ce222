"""Core's `GPTModel` from sizes, core's configuration, layers and groups."""

from typing import Optional

from megatron.core.models.gpt import GPTModel
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron_biollm.model.config import ModelConfig
from megatron_biollm.model.spec import build_block_spec


def build_gpt(
    sizes: ModelConfig,
    config: TransformerConfig,
    transformer_impl: str,
    groups: ProcessGroupCollection,
    pre_process: bool = True,
    post_process: bool = True,
    vp_stage: Optional[int] = None,
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
    """
    return GPTModel(
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
