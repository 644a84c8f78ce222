"""Seconds of one micro-batch on each pipeline rank: kernels, collectives, launches."""

from dataclasses import dataclass, replace

from megatron_biollm.planner.exchange import Exchange, context_parallel, tensor_parallel
from megatron_biollm.planner.kernels import Kernels, Seconds

# The CPU launches while the GPU computes: between the larger of the two (infinite) and their sum
# (1), since the queue of launched kernels runs empty now and then when they come close.
LAUNCH_NORM = 4


@dataclass(frozen=True)
class StageStep:
    """One micro-batch on one pipeline rank, all its model chunks, seconds.

    Attributes:
        forward, backward: kernels of the two passes.
        recompute: kernels of what the backward pass computes again.
        tensor: tensor-parallel collectives.
        context: keys and values of other context-parallel ranks.
        host: what launching takes beyond all of that.
    """

    forward: Seconds
    backward: Seconds
    recompute: Seconds
    tensor: Exchange
    context: Exchange
    host: float

    @property
    def compute(self) -> float:
        """All kernels."""
        return self.forward.total + self.backward.total + self.recompute.total

    @property
    def total(self) -> float:
        return self.compute + self.tensor.exposed + self.context.exposed + self.host

    @property
    def forward_pass(self) -> float:
        """Of the total; what is waited for is shared out as the kernels are."""
        return self.total * self.forward.total / self.compute

    @property
    def backward_pass(self) -> float:
        """Of the total, recomputation included."""
        return self.total - self.forward_pass


def layers_of_ranks(num_layers: int, ranks: int, chunks: int) -> list[int]:
    """Layers of each pipeline rank; a remainder goes to the stages after the first."""
    each, more = divmod(num_layers, ranks * chunks)
    layers = [each + (1 <= stage <= more) for stage in range(ranks * chunks)]
    return [sum(layers[rank::ranks]) for rank in range(ranks)]


def stage_steps(kernels: Kernels) -> list[StageStep]:
    """One entry per pipeline rank."""
    parallel = kernels.candidate.parallel
    ranks = parallel.pipeline_model_parallel_size
    chunks = parallel.virtual_pipeline_model_parallel_size or 1
    layers = layers_of_ranks(kernels.model.num_layers, ranks, chunks)
    kinds = [(count, rank == ranks - 1) for rank, count in enumerate(layers)]
    steps = {kind: _stage(kernels, *kind) for kind in set(kinds)}
    return [steps[kind] for kind in kinds]


def _stage(kernels: Kernels, layers: int, last: bool) -> StageStep:
    forward, backward = kernels.layer_forward() * layers, kernels.layer_backward() * layers
    if last:
        forward = forward + kernels.output_forward()
        backward = backward + kernels.output_backward(kernels.software.defer_output_gradient)
    again = share_recomputed(kernels)
    step = StageStep(
        forward=forward,
        backward=backward,
        recompute=_recomputed(kernels, again) * layers,
        tensor=tensor_parallel(kernels, 1 + again).times(layers),
        context=context_parallel(kernels).times(layers),
        host=0.0,
    )
    # Launching a backward pass takes about twice as long as the forward pass.
    launching = kernels.calibration.host_seconds(kernels.software.framework) * (1 + again / 3)
    return replace(step, host=_host_bound(step.total, launching * layers))


def share_recomputed(kernels: Kernels) -> float:
    """Of the layers, those that full recomputation computes again: all of them, or with the
    method "block" the first few of each stage."""
    parallel = kernels.candidate.parallel
    if parallel.recompute_granularity != "full":
        return 0.0
    if parallel.recompute_method != "block":
        return 1.0
    per_stage = kernels.model.num_layers / parallel.num_stages
    return min(1.0, parallel.recompute_num_layers / per_stage)


def _recomputed(kernels: Kernels, share: float) -> Seconds:
    """Per layer; share: see share_recomputed."""
    parallel = kernels.candidate.parallel
    if parallel.recompute_granularity != "selective":
        return kernels.layer_forward() * share
    again = Seconds()
    if "core_attn" in parallel.recompute_modules:
        again = again + kernels.attention_forward()
    if "mlp" in parallel.recompute_modules:
        again = again + kernels.feed_forward()
    return again


def _host_bound(device: float, launching: float) -> float:
    """What launching adds to the device's time."""
    return (device**LAUNCH_NORM + launching**LAUNCH_NORM) ** (1 / LAUNCH_NORM) - device
