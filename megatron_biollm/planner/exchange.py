"""What a step waits for between ranks: tensor and context parallelism, the pipeline, replicas."""

from typing import NamedTuple

from megatron_biollm.planner.candidate import Candidate
from megatron_biollm.planner.collectives import Group, gather_seconds, send_seconds
from megatron_biollm.planner.kernels import BF16, Kernels


class Exchange(NamedTuple):
    """Seconds of communication.

    Attributes:
        exposed: that ranks wait for, or that slow down the computation beside them.
        hidden: behind computation.
    """

    exposed: float
    hidden: float

    def times(self, count: float) -> "Exchange":
        return Exchange(self.exposed * count, self.hidden * count)

    def plus(self, other: "Exchange") -> "Exchange":
        return Exchange(self.exposed + other.exposed, self.hidden + other.hidden)


NOTHING = Exchange(0.0, 0.0)


def beside(communication: float, computation: float, interference: float) -> Exchange:
    """Communication that runs beside computation hides as far as that lasts, and takes a share of
    what it hides behind."""
    hidden = min(communication, computation) * (1 - interference)
    return Exchange(communication - hidden, hidden)


def tensor_parallel(kernels: Kernels, forwards: float) -> Exchange:
    """Per layer and micro-batch; forwards: forward passes, those recomputed included.

    Each layer gathers and scatters its tokens twice in each pass (an all-reduce without sequence
    parallelism is both); megatron-core gathers the inputs of column-parallel layers once more for
    the gradient of their weight, behind the gradient of the input.
    """
    parallel, software = kernels.candidate.parallel, kernels.software
    group = Group(parallel.tensor_model_parallel_size, 1)
    if group.size == 1:
        return NOTHING
    gpu, calibration = kernels.gpu, kernels.calibration
    elements = kernels.tokens * kernels.model.hidden_size
    element = BF16 if kernels.work.precision == "bf16" else 1
    gather = gather_seconds(elements * element, group, gpu, calibration)
    scatter = gather_seconds(elements * BF16, group, gpu, calibration)
    everything = 2 * (gather + scatter) * (forwards + 1)
    if software.tp_overlap == "none":
        return Exchange(everything, 0.0)
    once_more = 2 * gather if parallel.sequence_parallel else 0.0
    behind = 2 * scatter + once_more
    if software.tp_overlap == "full":
        behind = (everything + once_more) * calibration.tp_hidden
    hidden = behind * (1 - calibration.interference)
    return Exchange(everything + once_more - hidden, hidden)


def context_parallel(kernels: Kernels) -> Exchange:
    """Per layer and micro-batch: keys and values go round in the forward pass; in the backward
    pass they do and so do their gradients. Each step of the ring runs beside the attention of the
    step before."""
    parallel, model = kernels.candidate.parallel, kernels.model
    size, tp = parallel.context_parallel_size, parallel.tensor_model_parallel_size
    if size == 1:
        return NOTHING
    calibration = kernels.calibration
    keys_values = 2 * model.num_query_groups * model.kv_channels / tp * BF16
    whole = kernels.tokens * size * keys_values
    ring = gather_seconds(whole, Group(size, tp), kernels.gpu, calibration)
    attention = kernels.attention_forward().attention * (size - 1) / size
    forward = beside(ring, attention, calibration.interference)
    return forward.plus(beside(2 * ring, 2.5 * attention, calibration.interference))


def pipeline(kernels: Kernels) -> Exchange:
    """Per micro-batch: every model chunk sends activations on, and their gradients back."""
    parallel, gpu = kernels.candidate.parallel, kernels.gpu
    ranks = parallel.pipeline_model_parallel_size
    if ranks == 1:
        return NOTHING
    elements = kernels.tokens * kernels.model.hidden_size
    # Without sequence parallelism too, TP ranks send a part each and gather it.
    moved = elements * BF16 / parallel.tensor_model_parallel_size
    group = Group(ranks, kernels.candidate.world_size // ranks)
    one = send_seconds(moved, group.crosses_nodes(gpu), gpu, kernels.calibration)
    sends = 2 * one * (parallel.virtual_pipeline_model_parallel_size or 1)
    if not parallel.overlap_p2p_comm:
        return Exchange(sends, 0.0)
    return beside(sends, float("inf"), kernels.calibration.interference)


def data_parallel(kernels: Kernels, parameters: float, forward: float, backward: float) -> Exchange:
    """Per step: gradients reduced beside the last backward pass, parameters gathered beside the
    next forward pass, if the layout overlaps them.

    parameters: of this rank; forward, backward: seconds of one micro-batch.
    """
    candidate, parallel = kernels.candidate, kernels.candidate.parallel
    reduce, gather = _replicas(kernels, parameters)
    if candidate.sharding == "full":
        return _fully_sharded(kernels, reduce, gather, forward, backward)
    room = backward if parallel.overlap_grad_reduce else 0.0
    interference = kernels.calibration.interference
    if candidate.sharding == "none":
        return beside(2 * reduce, room, interference)
    next_room = forward if parallel.overlap_param_gather else 0.0
    return beside(reduce, room, interference).plus(beside(gather, next_room, interference))


def optimizer_shards(candidate: Candidate) -> int:
    """Ranks that share the update of the same parameters."""
    if candidate.sharding == "none":
        return 1
    return candidate.data_parallel_size * candidate.parallel.context_parallel_size


def _replicas(kernels: Kernels, parameters: float) -> tuple[float, float]:
    """Seconds to reduce and scatter all gradients, and to gather all parameters."""
    candidate, parallel = kernels.candidate, kernels.candidate.parallel
    size = candidate.data_parallel_size * parallel.context_parallel_size
    group = Group(size, parallel.tensor_model_parallel_size)
    gpu, calibration = kernels.gpu, kernels.calibration
    reduced = parameters * kernels.software.gradient_bytes
    return (
        gather_seconds(reduced, group, gpu, calibration),
        gather_seconds(parameters * BF16, group, gpu, calibration),
    )


def _fully_sharded(
    kernels: Kernels, reduce: float, gather: float, forward: float, backward: float
) -> Exchange:
    """Parameters gathered for each forward and each backward pass, gradients scattered after it,
    beside the computation of a neighbouring layer; once per step if there is a pipeline."""
    candidate = kernels.candidate
    interference = kernels.calibration.interference
    if candidate.parallel.pipeline_model_parallel_size > 1:
        return beside(gather + reduce, forward + backward, interference)
    passes = beside(gather, forward, interference).plus(
        beside(gather + reduce, backward, interference)
    )
    return passes.times(candidate.num_microbatches(kernels.work))
