"""Sizes and degrees become model chunks on this rank: the only place that knows both."""

import hashlib
from dataclasses import dataclass
from typing import Optional

import torch
from megatron.core import tensor_parallel
from megatron.core.dist_checkpointing.mapping import ShardedTensor, apply_factories
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.module import Float16Module
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron_biollm.config import UserError
from megatron_biollm.device.runtime import Device
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.model.gpt import Head, build_gpt
from megatron_biollm.model.lora_config import LoraConfig, is_adapter
from megatron_biollm.model.spec import choose_transformer_impl
from megatron_biollm.parallel.layout import ParallelConfig, check_model_fits_layout
from megatron_biollm.parallel.precision import Fp8, check_fp8_engine


@dataclass
class ParallelModel:
    """The model chunks of this rank and what is needed to run them.

    Attributes:
        chunks: one per virtual pipeline stage; wrapped for data parallelism if trainable.
        config: core's configuration, shared by the chunks.
        groups: process groups of this rank.
        transformer_impl: the layers in use, and why, for the log.
        lora: the adapters that are trained; None where the model itself is.
    """

    chunks: list[torch.nn.Module]
    config: TransformerConfig
    groups: ProcessGroupCollection
    transformer_impl: tuple[str, str]
    lora: Optional[LoraConfig] = None

    @property
    def bare_chunks(self) -> list[torch.nn.Module]:
        """The chunks without the data-parallel wrapper, as checkpoints store them."""
        wrapped = DistributedDataParallel
        return [c.module if isinstance(c, wrapped) else c for c in self.chunks]

    def bring_up_to_date(self) -> None:
        """Gathers the weights where `parallel.overlap_param_gather` leaves that to the next step.

        Until then every rank has updated the part alone whose optimizer state it owns. To be called
        by all ranks before anything but a training step reads the weights.
        """
        for chunk in self.chunks:
            if isinstance(chunk, DistributedDataParallel) and (
                chunk.ddp_config.overlap_param_gather
            ):
                chunk.start_param_sync(force_sync=True)

    @property
    def is_first_stage(self) -> bool:
        """This rank reads tokens."""
        return self.groups.pp.rank() == 0

    @property
    def is_last_stage(self) -> bool:
        """This rank computes the loss."""
        return self.groups.pp.rank() == self.groups.pp.size() - 1


def parallelize(
    sizes: ModelConfig,
    parallel: ParallelConfig,
    device: Device,
    groups: ProcessGroupCollection,
    bf16: bool,
    seed: int,
    trainable: bool = True,
    draw_weights: bool = True,
    head: Optional[Head] = None,
    lora: Optional[LoraConfig] = None,
    fp8: Optional[Fp8] = None,
) -> ParallelModel:
    """Builds this rank's chunks with weights that depend on the seed alone, not on the layout.

    Args:
        sizes: the network; its vocabulary size must be known.
        parallel: the degrees.
        device: where the chunks live.
        groups: process groups of the layout.
        bf16: bf16 parameters (fp32 main gradients), else fp32.
        seed: of the initial weights.
        trainable: wrap for data parallelism (gradients, their reduction).
        draw_weights: False leaves weights as allocated, for a checkpoint to overwrite; only
            without `trainable`, since core marks parameters for the optimizer as it draws them.
        head: takes the place of the output layer on the last stage.
        lora: adapters, which are then what is trained.
        fp8: matrix products of the layers in FP8; None has them in the precision of the weights.

    Raises:
        UserError: sizes and degrees do not fit, or the layers asked for are absent.
    """
    check_model_fits_layout(sizes, parallel)
    impl = choose_transformer_impl(sizes.transformer_impl, device.kind)
    _check_kernels(parallel, impl[0])
    if fp8 is not None:
        check_fp8_engine(fp8.recipe, *impl)
    config = transformer_config(sizes, parallel, device.kind, impl[0], bf16, fp8)
    config.perform_initialization = trainable or draw_weights
    # Core's generators per tensor-parallel rank; nothing draws from them while dropout is 0.
    tensor_parallel.model_parallel_cuda_manual_seed(seed)
    chunks = [
        _build_chunk(sizes, parallel, config, impl[0], groups, stage, head, lora).to(
            device.torch_device
        )
        for stage in range(parallel.virtual_pipeline_model_parallel_size or 1)
    ]
    for chunk in chunks if config.perform_initialization else ():
        initialize_weights(chunk, seed, sizes.init_method_std, sizes.num_layers)
    if bf16:
        chunks = [Float16Module(config, chunk) for chunk in chunks]
    if trainable:
        chunks = _wrap_for_data_parallelism(chunks, config, parallel, groups)
    return ParallelModel(chunks, config, groups, impl, lora)


def transformer_config(
    sizes: ModelConfig,
    parallel: ParallelConfig,
    device_kind: str,
    impl: str,
    bf16: bool,
    fp8: Optional[Fp8] = None,
) -> TransformerConfig:
    """Core's configuration of the architecture, the degrees and the kernels."""
    cuda, fused = device_kind == "cuda", impl == "transformer_engine"
    dtype = torch.bfloat16 if bf16 else torch.float32
    selective = parallel.recompute_granularity == "selective"
    return TransformerConfig(
        num_layers=sizes.num_layers,
        hidden_size=sizes.hidden_size,
        num_attention_heads=sizes.num_attention_heads,
        num_query_groups=sizes.num_query_groups,
        ffn_hidden_size=sizes.ffn_hidden_size,
        normalization="RMSNorm",
        layernorm_epsilon=sizes.norm_epsilon,
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        add_bias_linear=False,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        init_method_std=sizes.init_method_std,
        tensor_model_parallel_size=parallel.tensor_model_parallel_size,
        pipeline_model_parallel_size=parallel.pipeline_model_parallel_size,
        virtual_pipeline_model_parallel_size=parallel.virtual_pipeline_model_parallel_size,
        context_parallel_size=parallel.context_parallel_size,
        sequence_parallel=parallel.sequence_parallel,
        pipeline_dtype=dtype,
        params_dtype=dtype,
        bf16=bf16,
        use_cpu_initialization=not cuda,
        # One division by the global token count; core's default averages micro-batches and is
        # wrong by a third when their token counts differ.
        calculate_per_token_loss=True,
        recompute_granularity=parallel.recompute_granularity,
        recompute_method=parallel.recompute_method,
        recompute_num_layers=parallel.recompute_num_layers,
        recompute_modules=list(parallel.recompute_modules) if selective else None,
        overlap_p2p_comm=parallel.overlap_p2p_comm,
        batch_p2p_comm=cuda and not parallel.overlap_p2p_comm,
        # An overlapped send is still under way when core frees its output. NCCL's stream holds the
        # memory until it is sent; gloo would send whatever lies there by then.
        deallocate_pipeline_outputs=cuda or not parallel.overlap_p2p_comm,
        # SwiGLU, the loss, and rope where it is not Transformer Engine's are the device room's.
        bias_activation_fusion=True,
        cross_entropy_loss_fusion=cuda,
        apply_rope_fusion=cuda and fused,
        masked_softmax_fusion=False,
        bias_dropout_fusion=False,
        persist_layer_norm=False,
        # Weight gradients go straight into the main gradients, by Transformer Engine or the device
        # room.
        gradient_accumulation_fusion=True,
        **(fp8.core_fields if fp8 is not None else {}),
    )


@torch.no_grad()
def initialize_weights(chunk: torch.nn.Module, seed: int, std: float, num_layers: int) -> None:
    """Draws every weight from a generator keyed by the seed and the weight's global name.

    Matrices are normal(0, std), those that end a residual branch normal(0, std / sqrt(2 L)) as in
    Megatron-LM; norms are one. Of adapters, A is normal(0, 1 / sqrt(3 columns)), the spread that
    PEFT draws it with, and B is zero, so that they begin by changing nothing.

    Each rank draws the whole matrix and keeps its part, so that the weights are the same in every
    layout (core's own initialisation depends on TP and PP).
    """
    for piece in _sharded_tensors(chunk):
        if piece.data.dim() < 2:
            piece.data.fill_(1.0)
            continue
        scale = _standard_deviation(piece, std, num_layers)
        if scale == 0.0:
            piece.data.zero_()
            continue
        stacked = piece.global_offset[: piece.prepend_axis_num]
        generator = torch.Generator(piece.data.device)
        generator.manual_seed(_stable_seed(seed, piece.key, *stacked))
        whole = torch.empty(
            piece.global_shape[piece.prepend_axis_num :], device=piece.data.device
        ).normal_(0.0, scale, generator=generator)
        offsets = piece.global_offset[piece.prepend_axis_num :]
        for axis, (start, length) in enumerate(zip(offsets, piece.data.shape, strict=True)):
            whole = whole.narrow(axis, start, length)
        piece.data.copy_(whole)


def _standard_deviation(piece: ShardedTensor, std: float, num_layers: int) -> float:
    if is_adapter(piece.key):
        return (3 * piece.global_shape[-1]) ** -0.5 if piece.key.endswith(".a") else 0.0
    residual = "linear_proj" in piece.key or "linear_fc2" in piece.key
    return std / (2 * num_layers) ** 0.5 if residual else std


def _check_kernels(parallel: ParallelConfig, impl: str) -> None:
    selective = parallel.recompute_granularity == "selective"
    if impl == "local" and selective and "layernorm" in parallel.recompute_modules:
        raise UserError(
            f"parallel.recompute_modules={parallel.recompute_modules}: core recomputes layernorm "
            f"with Transformer Engine only, but the layers in use are {impl} "
            f"(model.transformer_impl); leave layernorm out"
        )


def _sharded_tensors(chunk: torch.nn.Module) -> list[ShardedTensor]:
    state = chunk.sharded_state_dict()
    apply_factories(state)
    pieces, queue = [], [state]
    while queue:
        item = queue.pop()
        if isinstance(item, ShardedTensor):
            pieces.append(item)
        elif isinstance(item, dict):
            queue.extend(item.values())
        elif isinstance(item, (list, tuple)):
            queue.extend(item)
    return [piece for piece in pieces if piece.data is not None]


def _stable_seed(*parts: object) -> int:
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _build_chunk(
    sizes: ModelConfig,
    parallel: ParallelConfig,
    config: TransformerConfig,
    impl: str,
    groups: ProcessGroupCollection,
    stage: int,
    head: Optional[Head],
    lora: Optional[LoraConfig],
) -> torch.nn.Module:
    virtual = parallel.virtual_pipeline_model_parallel_size
    first, last = groups.pp.rank() == 0, groups.pp.rank() == groups.pp.size() - 1
    return build_gpt(
        sizes,
        config,
        impl,
        groups,
        pre_process=first and stage == 0,
        post_process=last and stage == (virtual or 1) - 1,
        vp_stage=stage if virtual else None,
        head=head,
        lora=lora,
    )


def _wrap_for_data_parallelism(
    chunks: list[torch.nn.Module],
    config: TransformerConfig,
    parallel: ParallelConfig,
    groups: ProcessGroupCollection,
) -> list[torch.nn.Module]:
    ddp_config = DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        overlap_grad_reduce=parallel.overlap_grad_reduce,
        overlap_param_gather=parallel.overlap_param_gather,
        use_distributed_optimizer=parallel.use_distributed_optimizer,
    )
    wrapped = [
        # Buckets of later chunks fill before the earlier ones, so only the first overlaps.
        DistributedDataParallel(
            config, ddp_config, chunk, disable_bucketing=index > 0, pg_collection=groups
        )
        for index, chunk in enumerate(chunks)
    ]
    config.finalize_model_grads_func = finalize_model_grads
    if parallel.overlap_grad_reduce:
        config.no_sync_func = [c.no_sync for c in wrapped]
        if len(wrapped) == 1:
            config.no_sync_func = config.no_sync_func[0]
    return wrapped
