"""How long an optimizer step takes: the slowest pipeline rank, and what it waits for.

A step is the micro-batches of the slowest rank, the bubble while the pipeline fills and drains,
what stays exposed of the data-parallel exchange, and the optimizer. Matrix products, attention and
memory-bound kernels are timed apart (planner/kernels.py), as are collectives over NVLink and over
the network (planner/collectives.py). How well that agrees with published rates: `validate`.
"""

from dataclasses import asdict, dataclass

from megatron_biollm.model.config import ModelConfig
from megatron_biollm.model.flops import flops_per_token_6n, token_flops
from megatron_biollm.planner.calibration import Calibration, load_calibration
from megatron_biollm.planner.candidate import Candidate, Work
from megatron_biollm.planner.exchange import data_parallel, optimizer_shards, pipeline
from megatron_biollm.planner.hardware import Gpu
from megatron_biollm.planner.kernels import Kernels
from megatron_biollm.planner.software import Software, own_software
from megatron_biollm.planner.stage import StageStep, layers_of_ranks, stage_steps

CONVENTIONS = ("causal", "full", "6n")


@dataclass(frozen=True)
class StepTime:
    """One optimizer step, in seconds. The parts from compute to optimizer add up to `total`.

    Attributes:
        compute: kernels of forward and backward passes on the slowest pipeline rank.
        recompute: what the backward pass computes again.
        tp_exposed: tensor-parallel collectives waited for.
        cp_exposed: context-parallel exchange waited for.
        pp_exposed: pipeline sends waited for.
        host: GPU idle since the CPU cannot launch fast enough.
        bubble: idle while the pipeline fills and drains.
        dp_exposed: reduction of gradients and gathering of parameters, waited for.
        optimizer: update of the parameters.
        tp_hidden, cp_hidden, pp_hidden, dp_hidden: communication behind computation, not in total.
        imbalance: of the above, what the slowest rank takes longer than the average one.
        stage_forward, stage_backward: one micro-batch on each pipeline rank, all its chunks,
            exposed collectives included.
        tokens: of the step.
        world_size: GPUs.
        flops_per_token: by convention: "causal" half of attention, "full" attention, or plain "6n".
        peak_flops: of one GPU, in the precision of the matrix products.
        expected_error: half of the published rates that nothing was fitted to were predicted
            within this relative error of tokens/s.
        likely_error: nine in ten of them were.
    """

    compute: float
    recompute: float
    tp_exposed: float
    cp_exposed: float
    pp_exposed: float
    host: float
    bubble: float
    dp_exposed: float
    optimizer: float
    tp_hidden: float
    cp_hidden: float
    pp_hidden: float
    dp_hidden: float
    imbalance: float
    stage_forward: tuple[float, ...]
    stage_backward: tuple[float, ...]
    tokens: int
    world_size: int
    flops_per_token: dict[str, float]
    peak_flops: float
    expected_error: float
    likely_error: float

    @property
    def total(self) -> float:
        """Seconds of the whole step."""
        return (
            self.compute
            + self.recompute
            + self.tp_exposed
            + self.cp_exposed
            + self.pp_exposed
            + self.host
            + self.bubble
            + self.dp_exposed
            + self.optimizer
        )

    @property
    def tokens_per_second_per_gpu(self) -> float:
        return self.tokens / self.total / self.world_size

    def model_flops_per_second(self, convention: str = "causal") -> float:
        """FLOP/s per GPU that serve the model; recomputation does not count."""
        return self.flops_per_token[convention] * self.tokens_per_second_per_gpu

    def mfu(self, convention: str = "causal") -> float:
        """Of the peak in the precision of the matrix products."""
        return self.model_flops_per_second(convention) / self.peak_flops

    def as_dict(self) -> dict:
        """For JSON, with the derived figures."""
        return asdict(self) | {
            "total": self.total,
            "tokens_per_second_per_gpu": self.tokens_per_second_per_gpu,
            "mfu": {convention: self.mfu(convention) for convention in CONVENTIONS},
        }


def predict_step(
    work: Work,
    candidate: Candidate,
    gpu: Gpu,
    calibration: Calibration | None = None,
    software: Software | None = None,
) -> StepTime:
    """Times one optimizer step of a layout that the rules allow (they are not checked here).

    calibration: constants; the shipped ones if None.
    software: what the training program overlaps and fuses; this project's if None.

    Raises:
        UserError: FP8 on a GPU that has none.
    """
    calibration = calibration or load_calibration()
    software = software or own_software(work.model)
    kernels = Kernels(work, candidate, gpu, calibration, software)
    stages = stage_steps(kernels)
    slowest = max(stages, key=lambda stage: stage.total)
    parameters = parameters_of_rank(kernels)
    replicas = data_parallel(kernels, parameters, slowest.forward_pass, slowest.backward_pass)
    expected, likely = calibration.errors[work.precision]
    return StepTime(
        **_pipeline_parts(kernels, stages, slowest, candidate.num_microbatches(work)),
        dp_exposed=replicas.exposed,
        dp_hidden=replicas.hidden,
        optimizer=kernels.optimizer(parameters / optimizer_shards(candidate)),
        stage_forward=tuple(stage.forward_pass for stage in stages),
        stage_backward=tuple(stage.backward_pass for stage in stages),
        tokens=work.tokens_per_step,
        world_size=candidate.world_size,
        flops_per_token=flops_by_convention(work.model),
        peak_flops=gpu.peak_flops(work.precision),
        expected_error=expected,
        likely_error=likely,
    )


def flops_by_convention(model: ModelConfig) -> dict[str, float]:
    """FLOPs to train on one token, by the name of the convention."""
    return {
        "causal": token_flops(model).forward_backward,
        "full": token_flops(model, causal=False).forward_backward,
        "6n": flops_per_token_6n(model),
    }


def parameters_of_rank(kernels: Kernels) -> float:
    """Of the largest pipeline rank, on one tensor-parallel rank."""
    parallel = kernels.candidate.parallel
    ranks = parallel.pipeline_model_parallel_size
    chunks = parallel.virtual_pipeline_model_parallel_size or 1
    layers = max(layers_of_ranks(kernels.model.num_layers, ranks, chunks))
    embeddings = (2 if ranks == 1 else 1) * kernels.output_parameters
    return layers * kernels.layer_parameters + embeddings


def _pipeline_parts(
    kernels: Kernels, stages: list[StageStep], slowest: StageStep, count: int
) -> dict[str, float]:
    """The micro-batches of the slowest rank, and the bubble.

    Filling and draining takes each other rank's share of one micro-batch, divided by the model
    chunks per rank: (PP - 1) / (VPP x micro-batches) of the step if all ranks are equal.
    """
    chunks = kernels.candidate.parallel.virtual_pipeline_model_parallel_size or 1
    sends = pipeline(kernels)
    everyone = sum(stage.total for stage in stages)
    return {
        "compute": (slowest.forward.total + slowest.backward.total) * count,
        "recompute": slowest.recompute.total * count,
        "tp_exposed": slowest.tensor.exposed * count,
        "tp_hidden": slowest.tensor.hidden * count,
        "cp_exposed": slowest.context.exposed * count,
        "cp_hidden": slowest.context.hidden * count,
        "pp_exposed": sends.exposed * count,
        "pp_hidden": sends.hidden * count,
        "host": slowest.host * count,
        "bubble": (everyone - slowest.total) / chunks + sends.exposed * (len(stages) - 1) / chunks,
        "imbalance": (slowest.total - everyone / len(stages)) * count,
    }
