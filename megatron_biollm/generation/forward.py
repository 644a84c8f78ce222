"""One forward pass through all pipeline stages, with or without core's key/value cache.

Of core's inference this uses the static context (the cache) and the pipeline's sends. Core's own
loop is not used: between stages it broadcasts the logits of the whole vocabulary for every token,
through a function that refuses tensors which are not on a GPU, and it takes neither sequence nor
interleaved pipeline parallelism; its dynamic engine needs flash-attn.
"""

import contextlib
from collections.abc import Iterator
from typing import Optional

import torch
from megatron.core.inference import utils as inference_utils
from megatron.core.inference.communication_utils import (
    recv_from_prev_pipeline_rank_,
    send_to_next_pipeline_rank,
)
from megatron.core.inference.contexts import StaticInferenceContext

from megatron_biollm.config import UserError
from megatron_biollm.parallel.parallelize import ParallelModel

SEQUENCE_PARALLEL_SWITCHES = (
    "sequence_parallel",
    "scatter_to_sequence_parallel",
    "reduce_scatter_embeddings",
)


class KeyValueCache:
    """Keys and values of the tokens that this rank's layers have seen.

    Args:
        batch_size: rows of every pass.
        max_length: tokens per row, prompt and continuation together.
    """

    def __init__(self, batch_size: int, max_length: int) -> None:
        self.context = StaticInferenceContext(batch_size, max_length)

    @property
    def length(self) -> int:
        """Tokens seen so far; the next pass goes on from there."""
        return self.context.sequence_len_offset

    def advance(self, length: int) -> None:
        """Counts the tokens of a pass."""
        self.context.increment_sequence_len_offset(length)


def check_generates(model: ParallelModel) -> None:
    """Checks that the model lies on ranks in a way that generation can use.

    Raises:
        UserError: context parallelism, or several model chunks per rank.
    """
    if model.config.context_parallel_size > 1:
        raise UserError(
            f"parallel.context_parallel_size={model.config.context_parallel_size} cuts sequences "
            f"into pieces, and generation adds one token at a time; use tensor and pipeline "
            f"parallelism for it (a checkpoint loads into any layout)"
        )
    if len(model.chunks) > 1:
        raise UserError(
            f"parallel.virtual_pipeline_model_parallel_size={len(model.chunks)} interleaves model "
            f"chunks, and generation runs plain pipeline stages; leave it out for generation (a "
            f"checkpoint loads into any layout)"
        )


@contextlib.contextmanager
def inference(model: ParallelModel) -> Iterator[None]:
    """The state a model must be in for `forward`; a model in training is as before afterwards.

    Dropout is off. Sequence parallelism is too, since one new token cannot be shared by ranks; it
    says where activations lie, so the weights are the same. So is FP8, whose matrix products want
    16 tokens or more.
    """
    (chunk,) = model.bare_chunks
    was_training, was_sharded = chunk.training, model.config.sequence_parallel
    fp8 = model.config.fp8
    switches = [
        (module, name, getattr(module, name))
        for module in chunk.modules()
        for name in SEQUENCE_PARALLEL_SWITCHES
        if hasattr(module, name)
    ]
    try:
        chunk.eval()
        model.config.sequence_parallel, model.config.fp8 = False, None
        for module, name, _ in switches:
            setattr(module, name, False)
        # Not `inference_mode`: core keeps its rotary tables, and training must differentiate
        # through them later.
        with torch.no_grad():
            yield
    finally:
        for module, name, value in switches:
            setattr(module, name, value)
        model.config.sequence_parallel, model.config.fp8 = was_sharded, fp8
        chunk.train(was_training)


def forward(
    model: ParallelModel,
    tokens_bs: torch.Tensor,
    cache: Optional[KeyValueCache] = None,
    places: Optional[tuple[torch.Tensor, torch.Tensor]] = None,
) -> Optional[torch.Tensor]:
    """Runs tokens through all stages; every rank of the model calls it, within `inference`.

    Args:
        model: passes `check_generates`.
        tokens_bs: the same int64 ids on every rank; with a cache, those that follow its content.
        cache: gives keys and values of earlier tokens and takes those of the new ones.
        places: without a cache, rows and columns, [n] each: logits of these tokens alone.

    Returns:
        None but on the last stage. With a cache, logits of the last token over the padded
        vocabulary, [b, 1, v]. Without, logits of every token over this tensor-parallel rank's
        share of it, [b, s, v/tp]; of chosen places [n, v/tp].
    """
    (chunk,) = model.bare_chunks
    batch, length = tokens_bs.shape
    first = cache.length if cache is not None else 0
    positions_bs = torch.arange(first, first + length, device=tokens_bs.device).expand(batch, -1)
    chunk.set_input_tensor(_from_previous_stage(model, batch, length, tokens_bs.device))
    chosen = places is not None and model.is_last_stage
    with contextlib.ExitStack() as stack:
        if cache is not None:
            stack.enter_context(_engine_running())
        if chosen:
            stack.enter_context(_without_output_layer(_bare(chunk)))
        output = chunk(
            tokens_bs,
            positions_bs,
            None,
            inference_context=cache.context if cache is not None else None,
            runtime_gather_output=True if cache is not None else None,
        )
    if cache is not None:
        cache.advance(length)
    if chosen:
        layer = _bare(chunk).output_layer
        # In bf16 what leaves the model is fp32, whichever it is.
        hidden_n1h = output[places[1], places[0]][:, None].to(layer.weight.dtype)
        return layer(hidden_n1h)[0][:, 0]
    if model.is_last_stage:
        return output
    send_to_next_pipeline_rank(output, model.groups.pp)
    return None


def _bare(chunk: torch.nn.Module) -> torch.nn.Module:
    """Core's GPTModel, without what casts to bf16 around it."""
    return chunk if hasattr(chunk, "post_process") else chunk.module


@contextlib.contextmanager
def _without_output_layer(gpt: torch.nn.Module) -> Iterator[None]:
    """Has the last stage give the normalised states that it would make logits of, [s, b, h]."""
    gpt.post_process = False
    try:
        yield
    finally:
        gpt.post_process = True


def model_device(model: ParallelModel) -> torch.device:
    """Where this rank's weights are, and so where tokens must be."""
    return next(model.chunks[0].parameters()).device


def broadcast_from_last_stage(model: ParallelModel, values: torch.Tensor) -> torch.Tensor:
    """Gives every rank of the model what the first tensor-parallel rank of the last stage holds.

    Overwrites `values`, which has one shape and dtype everywhere, and returns it.
    """
    # The ranks of the group go stage by stage. One source for all, so that no rank can differ.
    ranks = torch.distributed.get_process_group_ranks(model.groups.mp)
    source = ranks[-model.groups.tp.size()]
    torch.distributed.broadcast(values, src=source, group=model.groups.mp)
    return values


def _from_previous_stage(
    model: ParallelModel, batch: int, length: int, device: torch.device
) -> Optional[torch.Tensor]:
    if model.is_first_stage:
        return None
    hidden_sbh = torch.empty(
        (length, batch, model.config.hidden_size), dtype=model.config.pipeline_dtype, device=device
    )
    recv_from_prev_pipeline_rank_(hidden_sbh, model.groups.pp)
    return hidden_sbh


def _engine_running() -> contextlib.AbstractContextManager[None]:
    """Core from 0.17 on asks a switch of the process whether it infers; before, the context."""
    switch = getattr(inference_utils, "InferenceMode", None)
    return switch.active() if switch is not None else contextlib.nullcontext()
