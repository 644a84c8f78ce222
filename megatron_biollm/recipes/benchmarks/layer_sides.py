"""The sides of the layer benchmark: our layers in every way that they can be computed, and
transformers'; what they cost, and what memory they should take.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Optional

import torch

from megatron_biollm.device.runtime import Device
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.model.flops import token_flops
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.parallel.parallelize import ParallelModel, parallelize
from megatron_biollm.parallel.precision import Fp8, check_fp8_sizes
from megatron_biollm.parallel.process_groups import create_process_groups
from megatron_biollm.planner.candidate import Candidate, Work
from megatron_biollm.planner.memory import predict_memory
from megatron_biollm.recipes.benchmarks.predicted_memory import Prediction, rehearsed_apart
from megatron_biollm.recipes.benchmarks.sides import Side, Step
from megatron_biollm.recipes.benchmarks.timed_training import OURS
from megatron_biollm.recipes.benchmarks.training_sides import COMPILED, PEER, hf_network, kernels_of
from megatron_biollm.rehearsal.fake_world import fake_world
from megatron_biollm.rehearsal.rank import GPU, kernels

# Of a GPU's free memory, what the layers of the hungriest side are planned to take.
FILL = 0.8
# Rows of the embedding and of the output layer, which are there and unused.
VOCABULARY = 128


@dataclass(frozen=True)
class Variant:
    """One way to compute our layers.

    Attributes:
        name: in tables.
        transformer_impl: `local` or `transformer_engine`.
        parallel: fields of the layout (recomputation).
        fp8: matrix products in FP8; None has them in the weights' precision.
    """

    name: str
    transformer_impl: str
    parallel: dict[str, Any] = field(default_factory=dict)
    fp8: Optional[Fp8] = None


FP8 = "fp8"
SELECTIVE = {"recompute_granularity": "selective"}
VARIANTS = (
    Variant("local", "local"),
    Variant("local, selective", "local", SELECTIVE),
    Variant("transformer_engine", "transformer_engine"),
    Variant("transformer_engine, selective", "transformer_engine", SELECTIVE),
    Variant(f"transformer_engine, {FP8}", "transformer_engine", fp8=Fp8()),
)


@dataclass(frozen=True)
class Passes:
    """What a step runs through the layers.

    Attributes:
        rows: sequences of a micro-batch.
        count: micro-batches of a step.
        bf16: else fp32.
    """

    rows: int
    count: int
    bf16: bool

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and hidden states."""
        return torch.bfloat16 if self.bf16 else torch.float32


def our_side(
    model: ModelConfig, variant: Variant, passes: Passes, device: Device, groups: Any
) -> Side:
    """Our layers, as `parallelize` builds them for training."""

    def build() -> Step:
        sizes = replace(model, transformer_impl=variant.transformer_impl)
        parallel = ParallelConfig(**variant.parallel)
        if variant.fp8 is not None:
            check_fp8_sizes(variant.fp8.recipe, sizes, parallel, passes.rows)
        chunks = parallelize(
            sizes, parallel, device, groups, bf16=passes.bf16, seed=0, fp8=variant.fp8
        )
        step = our_step(chunks, model.seq_length, passes, device.torch_device)
        return Step(step, kernels_of(chunks, device))

    state = f"{'bf16' if passes.bf16 else 'fp32'} weights, fp32 gradients"
    return Side(f"{OURS}: {variant.name}", build, ours=True, state=state)


def our_step(
    chunks: ParallelModel, seq_length: int, passes: Passes, device: torch.device
) -> Callable[[], None]:
    """Forward and backward passes through the decoder of the first chunk, without its wrappers."""
    wrapper = chunks.chunks[0]
    gpt = wrapper
    while not hasattr(gpt, "decoder"):
        gpt = gpt.module
    rotary = gpt.rotary_pos_emb(seq_length)
    hidden, gradient = _states(
        (seq_length, passes.rows, chunks.config.hidden_size), passes.dtype, device
    )
    first = getattr(gpt, "set_is_first_microbatch", lambda: None)

    def step() -> None:
        wrapper.zero_grad_buffer()
        first()
        for _ in range(passes.count):
            hidden.grad = None
            gpt.decoder(hidden, None, rotary_pos_emb=rotary).backward(gradient)

    return step


def peer_side(model: ModelConfig, passes: Passes, device: Device, compiled: bool) -> Side:
    """transformers' layers with SDPA, compiled as a whole or not at all."""

    def build() -> Step:
        network = hf_network(model, device, passes.dtype).model
        run = torch.compile(network) if compiled else network
        hidden, gradient = _states(
            (passes.rows, model.seq_length, model.hidden_size), passes.dtype, device.torch_device
        )

        def step() -> None:
            network.zero_grad(set_to_none=True)
            for _ in range(passes.count):
                hidden.grad = None
                run(inputs_embeds=hidden, use_cache=False).last_hidden_state.backward(gradient)

        return Step(step, "SDPA" + (", torch.compile" if compiled else ""))

    state = f"{'bf16' if passes.bf16 else 'fp32'} weights and gradients"
    return Side(COMPILED if compiled else PEER, build, state=state)


def _states(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states that want a gradient, as every layer's but the first's do, and a gradient."""
    states = torch.randn(shape, dtype=dtype, device=device)
    return states.requires_grad_(), torch.randn(shape, dtype=dtype, device=device)


def layers_alone(model: ModelConfig, layers: int) -> ModelConfig:
    """A model of these layers with next to no vocabulary, whose embeddings are not used."""
    return replace(
        model,
        preset=None,
        num_layers=layers,
        vocab_size=VOCABULARY,
        make_vocab_size_divisible_by=VOCABULARY,
    )


def layers_flops(model: ModelConfig) -> float:
    """FLOPs per token, forward and backward, of the layers alone; recomputation is not counted."""
    counted = token_flops(model)
    return 3 * (counted.projections + counted.attention + counted.feed_forward)


def as_many_as_fit(model: ModelConfig, passes: Passes, device: Device) -> int:
    """Layers whose weights, gradients and activations fill most of a GPU's free memory; 1 on the
    CPU."""
    if device.kind != "cuda":
        return 1
    one, two = (
        planned_bytes(layers_alone(model, n), ParallelConfig(), passes.rows) for n in (1, 2)
    )
    fit = 1 + int((FILL * device.free_memory_bytes() - one) // (two - one))
    return max(1, min(fit, model.num_layers))


def planned_bytes(
    model: ModelConfig, parallel: ParallelConfig, rows: int, precision: str = "bf16"
) -> float:
    """Memory of the layers by the planner's arithmetic: no optimizer, no loss."""
    stage = predict_memory(Work(model, rows, precision), Candidate(parallel, rows, 1))[0]
    return stage.weights + stage.gradients + stage.activations


def predict_layers(model: ModelConfig, variant: Variant, passes: Passes) -> Prediction:
    """Peak memory of a step of one variant on a GPU, in bf16."""
    sizes = replace(model, transformer_impl=variant.transformer_impl)
    parallel = ParallelConfig(**variant.parallel)
    if variant.fp8 is not None:
        planned = planned_bytes(sizes, parallel, passes.rows, FP8)
        return Prediction(None, int(planned), "the rehearsal knows no FP8")
    rehearsed, reason = rehearsed_apart(rehearse_layers, sizes, parallel, passes)
    return Prediction(rehearsed, int(planned_bytes(sizes, parallel, passes.rows)), reason)


def rehearse_layers(model: ModelConfig, parallel: ParallelConfig, passes: Passes) -> int:
    """Most bytes of a step, its first left out; nothing is computed."""
    with kernels(True), fake_world(0, 1) as recorder:
        groups = create_process_groups(parallel)
        chunks = parallelize(model, parallel, GPU, groups, bf16=passes.bf16, seed=0)
        step = our_step(chunks, model.seq_length, passes, torch.device("cpu"))
        step()
        first = recorder.memory.span("between")
        step()
        return recorder.memory.peak(first).total
