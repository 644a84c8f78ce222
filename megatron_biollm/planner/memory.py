"""Memory of one GPU, by part and by pipeline rank: what megatron-core allocates, and what lies
outside torch's sight.

Weights are bf16, main gradients fp32 (core's data-parallel wrapper with `grad_reduce_in_fp32`), the
optimizer holds an fp32 master copy and two moments. Core's distributed optimizer gathers updated
parameters into the very buffer that the weights live in (`distributed/param_and_grad_buffer.py`),
so overlapping that costs no memory.
"""

from dataclasses import dataclass

from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.planner.activations import (
    BF16,
    FP8,
    FP32,
    backward_workspace,
    held_per_chunk,
    key_width,
    recomputed_at_once,
    stream_ranks,
    tokens_per_microbatch,
)
from megatron_biollm.planner.candidate import Candidate, Work
from megatron_biollm.planner.schedule import chunks_in_flight

MIB = 2**20
GIB = 2**30

# fp32 master weight and Adam's two moments.
OPTIMIZER_BYTES = 3 * FP32
# One NCCL communicator over NVLink: 544 MiB where it has two ranks and 688 MiB beyond, by
# nvidia-smi on four A100 (https://github.com/NVIDIA/nccl/issues/964, the 4 MB all-reduces there).
COMMUNICATOR_OF_TWO = 544 * MIB
COMMUNICATOR = 688 * MIB
# CUDA's context with the kernels of torch, cuBLAS and Transformer Engine on a GPU that has done
# nothing else, and cuBLAS's workspace of 32 MiB on each of TE's four streams.
CUDA_CONTEXT = 600 * MIB + 4 * 32 * MIB
# torch's allocator splits what it holds: blocks are rounded up and freed ones do not always fit
# the next request. The sizes of a step repeat, so it is little, and in activations alone.
FRAGMENTATION = 0.05
# What the loss keeps of a token beside its logits (`device/vocab_loss.py`): the normaliser (fp32),
# the label's column (int64), and whether that is this rank's (fp32).
LOSS_BYTES = FP32 + 8 + FP32
# Boundary tensors of the pipeline that are sent or received while another pass runs: one each way
# forward and backward.
PIPELINE_BUFFERS = 4
# FSDP holds two gathered layers, the one that runs and the one that is fetched.
GATHERED_LAYERS = 2


@dataclass(frozen=True)
class StageMemory:
    """Bytes on each GPU of one pipeline rank, at the peak of a step.

    Attributes:
        weights: bf16 parameters.
        gradients: fp32 main gradients.
        optimizer: master weights and moments, this rank's share.
        activations: of all micro-batches in flight, and the work space of one backward pass.
        logits: final norm, output layer and cross-entropy, on the last rank.
        communication: NCCL's buffers and the pipeline's.
        reserve: CUDA context and fragmentation.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    communication: float
    reserve: float

    @property
    def parts(self) -> dict[str, float]:
        """Bytes by name, in the order above."""
        return dict(vars(self))  # dataclasses.asdict copies deeply, for thousands of layouts

    @property
    def total(self) -> float:
        """All of it: what the GPU must have."""
        return sum(self.parts.values())

    @property
    def tensors(self) -> float:
        """What torch allocates for the model: all but communication and reserve."""
        return self.total - self.communication - self.reserve


def predict_memory(work: Work, candidate: Candidate) -> list[StageMemory]:
    """Peak memory of each pipeline rank, first stage first."""
    ranks = range(candidate.parallel.pipeline_model_parallel_size)
    return [predict_stage(work, candidate, rank) for rank in ranks]


def predict_stage(work: Work, candidate: Candidate, rank: int) -> StageMemory:
    """Peak memory of one pipeline rank."""
    weights, gradients, optimizer = _state(work, candidate, rank)
    logits, loss = _logits(work, candidate, rank)
    held, workspace = _activations(work, candidate, rank)
    # The loss and a layer's backward pass do not run at once: the larger one counts.
    activations = held + max(workspace - loss, 0.0)
    return StageMemory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        logits=logits + loss,
        communication=_communication(work, candidate),
        reserve=CUDA_CONTEXT + FRAGMENTATION * (activations + logits + loss),
    )


def parameters_on(work: Work, parallel: ParallelConfig, rank: int) -> tuple[float, float]:
    """Parameters of one pipeline rank: those of its layers, and those of the embedding, the output
    layer and the final norm."""
    model = work.model
    layers = model.num_layers // parallel.pipeline_model_parallel_size
    inner = layers * (layer_matrices(work, parallel) + 2 * model.hidden_size)
    table = model.padded_vocab_size * model.hidden_size / parallel.tensor_model_parallel_size
    outer = table if rank == 0 else 0.0
    if rank == parallel.pipeline_model_parallel_size - 1:
        outer += table + model.hidden_size
    return inner, outer


def layer_matrices(work: Work, parallel: ParallelConfig) -> float:
    """Parameters of one layer's matrices on one rank."""
    model, hidden = work.model, work.model.hidden_size
    attention = 2 * hidden * hidden + 2 * hidden * key_width(model)
    feed_forward = 3 * hidden * model.ffn_hidden_size
    return (attention + feed_forward) / parallel.tensor_model_parallel_size


def _state(work: Work, candidate: Candidate, rank: int) -> tuple[float, float, float]:
    """Bytes of weights, main gradients and optimizer state."""
    parallel = candidate.parallel
    inner, outer = parameters_on(work, parallel, rank)
    shards = candidate.data_parallel_size * parallel.context_parallel_size
    if candidate.sharding == "full":
        # The sharded weights are the fp32 master copy; the gathered ones are bf16.
        gathered = GATHERED_LAYERS * layer_matrices(work, parallel) + outer
        whole = inner + outer
        return BF16 * gathered, FP32 * (whole / shards + gathered), OPTIMIZER_BYTES * whole / shards
    # FP8 keeps a copy of each matrix and its transpose beside the bf16 weights.
    copies = 2 * FP8 * inner if work.precision == "fp8" else 0.0
    optimizer = OPTIMIZER_BYTES * (inner + outer)
    if candidate.sharding == "optimizer":
        optimizer /= shards
    return BF16 * (inner + outer) + copies, FP32 * (inner + outer), optimizer


def _activations(work: Work, candidate: Candidate, rank: int) -> tuple[float, float]:
    """Bytes that wait for a backward pass, and those that a layer's backward pass needs."""
    parallel = candidate.parallel
    tokens = tokens_per_microbatch(work, candidate)
    in_flight = chunks_in_flight(parallel, rank, candidate.num_microbatches(work))
    held = in_flight * tokens * held_per_chunk(work, parallel)
    per_token = recomputed_at_once(work, parallel) + backward_workspace(work, parallel)
    # Transformer Engine adds weight gradients to the main ones and returns an empty tensor of each
    # weight's shape to autograd; it keeps one per shape.
    placeholders = BF16 * layer_matrices(work, parallel)
    return held, tokens * per_token + placeholders


def _logits(work: Work, candidate: Candidate, rank: int) -> tuple[float, float]:
    """On the last rank: bytes held beside the layers', and those while the loss is computed.

    Held are the final norm's input and output and the gathered input of the output layer. The loss
    has the bf16 logits, which become their gradient where they lie, for one micro-batch: its
    backward pass follows at once.
    """
    parallel, model = candidate.parallel, work.model
    if rank != parallel.pipeline_model_parallel_size - 1:
        return 0.0, 0.0
    tokens = tokens_per_microbatch(work, candidate)
    stream = BF16 * model.hidden_size / stream_ranks(parallel)
    gathered = BF16 * model.hidden_size if stream_ranks(parallel) > 1 else 0.0
    columns = model.padded_vocab_size / parallel.tensor_model_parallel_size
    return tokens * (2 * stream + gathered), tokens * (BF16 * columns + LOSS_BYTES)


def _communication(work: Work, candidate: Candidate) -> float:
    """NCCL's buffers, one set for each communicator that a step uses, and the pipeline's."""
    parallel = candidate.parallel
    sizes = [
        parallel.tensor_model_parallel_size,
        parallel.context_parallel_size,
        # Gradients are reduced over data and context parallelism together, batch hashes over data
        # parallelism alone, the gradient norm and the loss over everything.
        candidate.data_parallel_size * parallel.context_parallel_size,
        candidate.data_parallel_size if parallel.context_parallel_size > 1 else 1,
        candidate.world_size,
        *_pipeline_groups(parallel),
    ]
    nccl = sum(COMMUNICATOR if n > 2 else COMMUNICATOR_OF_TWO for n in sizes if n > 1)
    if parallel.pipeline_model_parallel_size == 1:
        return nccl
    boundary = BF16 * work.model.hidden_size / stream_ranks(parallel)
    return nccl + PIPELINE_BUFFERS * boundary * tokens_per_microbatch(work, candidate)


def _pipeline_groups(parallel: ParallelConfig) -> list[int]:
    """Sends that are not batched have a communicator for each pair of neighbours in torch."""
    size = parallel.pipeline_model_parallel_size
    return [2, 2] if parallel.overlap_p2p_comm and size > 2 else [size]
