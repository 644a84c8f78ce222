"""A run before the planner: will it fit, how long will it take, what will it cost."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Optional

import yaml

from megatron_biollm.atomic import whole_file
from megatron_biollm.config import UserError
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.planner.calibration import load_calibration
from megatron_biollm.planner.candidate import Candidate, Work
from megatron_biollm.planner.cost import Cost, Prices, predict_cost
from megatron_biollm.planner.describe import find_layout, parse_description
from megatron_biollm.planner.hardware import Gpu, load_gpu
from megatron_biollm.planner.search import (
    MEMORY_MARGIN,
    MICRO_BATCH_SIZES,
    Layout,
    Question,
    Refused,
    Search,
    assess,
    search,
)
from megatron_biollm.planner.timing import predict_step
from megatron_biollm.recipes.run_config import RunConfig


@dataclass(frozen=True)
class PlanOptions:
    """What a plan is made for.

    Attributes:
        gpu: name in the GPU table.
        gpus: in all; None takes nodes times the GPUs of one.
        nodes: machines; None where gpus tells.
        gpus_per_node: None takes gpus / nodes, else what the GPU table has.
        gpu_table: the user's own GPUs.
        tokens: to train on; None takes the configuration's steps.
        memory_margin: part of the GPU's memory to keep free.
        prices: for the cost.
        start: of the run, for the calendar.
    """

    gpu: str
    gpus: Optional[int] = None
    nodes: Optional[int] = None
    gpus_per_node: Optional[int] = None
    gpu_table: Optional[Path] = None
    tokens: Optional[float] = None
    memory_margin: float = MEMORY_MARGIN
    prices: Prices = field(default_factory=Prices)
    start: Optional[datetime] = None


@dataclass(frozen=True)
class Plan:
    """Attributes:
    question: work, GPUs and rules.
    found: what the search found.
    own: the configuration's own layout, whatever became of it.
    tokens: to train on.
    prices: for the cost.
    start: of the run.
    notes: what the plan assumed.
    """

    question: Question
    found: Search
    own: Layout | Refused
    tokens: float
    prices: Prices
    start: datetime
    notes: tuple[str, ...]

    @property
    def best(self) -> Optional[Layout]:
        """The fastest layout that fits."""
        return self.found.fitting[0] if self.found.fitting else None

    def cost(self, layout: Layout, slower: float = 0.0) -> Cost:
        """Of the whole run in a layout.

        slower: relative error that the rate is taken to have, positive where it is too high.
        """
        question = self.question
        rate = layout.step.tokens_per_second_per_gpu * question.world_size / (1 + slower)
        watts = question.gpu.power_watts
        return predict_cost(self.tokens, rate, question.world_size, watts, self.prices)


def make_plan(config: RunConfig, options: PlanOptions) -> Plan:
    """Searches the layouts of a run.

    Raises:
        UserError: no vocabulary size, unknown GPU, or numbers of GPUs that contradict each other.
    """
    gpu, world_size = place(options)
    if not 0 <= options.memory_margin < 1:
        raise UserError(
            f"memory margin {options.memory_margin} is the part of the GPU's memory to keep free; "
            f"give 0 or more and less than 1"
        )
    question = ask(config, gpu, world_size, options.memory_margin)
    tokens = options.tokens
    if tokens is None:
        tokens = config.training.train_iters * question.work.tokens_per_step
    if tokens <= 0:
        raise UserError(f"tokens={tokens} must be more than 0")
    return Plan(
        question=question,
        found=search(question),
        own=own_layout(config, question),
        tokens=tokens,
        prices=options.prices,
        start=options.start or datetime.now(),
        notes=_notes(config),
    )


def place(options: PlanOptions) -> tuple[Gpu, int]:
    """The GPU, with its number per node, and how many there are.

    Raises:
        UserError: unknown GPU, or numbers that contradict each other.
    """
    gpu = load_gpu(options.gpu, options.gpu_table)
    for name in ("gpus", "nodes", "gpus_per_node"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"{name}={value} must be at least 1")
    gpus, nodes, per_node = options.gpus, options.nodes, options.gpus_per_node
    if gpus is None and nodes is None:
        raise UserError("how many GPUs? give --gpus 256, or --nodes 32")
    if gpus is not None and nodes is not None:
        if gpus % nodes or per_node not in (None, gpus // nodes):
            raise UserError(
                f"{gpus} GPUs are not {nodes} nodes of {per_node or 'equally many'}; give two of "
                f"--gpus, --nodes and --gpus-per-node"
            )
        per_node = gpus // nodes
    gpu = replace(gpu, gpus_per_node=per_node or gpu.gpus_per_node)
    return gpu, gpus if gpus is not None else nodes * gpu.gpus_per_node


def ask(config: RunConfig, gpu: Gpu, world_size: int, memory_margin: float) -> Question:
    """The question whose rules are those that the run itself would check."""
    sizes = {*MICRO_BATCH_SIZES, config.training.micro_batch_size}
    precision = "bf16" if config.training.fp8 is None else "fp8"
    work = Work(config.model, config.training.global_batch_size, precision)
    return Question(
        work=work,
        world_size=world_size,
        gpu=gpu,
        check=_rules(config, world_size),
        predict=partial(_predict, work, gpu, load_calibration()),
        memory_margin=memory_margin,
        micro_batch_sizes=tuple(sorted(sizes)),
    )


def own_layout(config: RunConfig, question: Question) -> Layout | Refused:
    """The configuration's own layout on these GPUs."""
    parallel, micro_batch_size = config.parallel, config.training.micro_batch_size
    try:
        question.check(parallel, micro_batch_size)
    except UserError as error:
        return Refused(parallel, micro_batch_size, str(error))
    sharding = "optimizer" if parallel.use_distributed_optimizer else "none"
    replicas = parallel.data_parallel_size(question.world_size)
    return assess(question, Candidate(parallel, micro_batch_size, replicas, sharding))


def explained(plan: Plan, description: str) -> Layout | Refused:
    """The layout of a description such as `tp=8 pp=2`, timed even if it does not fit.

    Raises:
        UserError: a description that cannot be read, or that no layout of these GPUs has.
    """
    wanted, question, found = parse_description(description), plan.question, plan.found
    if wanted.get("mbs", 1) not in question.micro_batch_sizes:
        found = search(replace(question, micro_batch_sizes=(wanted["mbs"],)))
    outcome = find_layout(found, wanted)
    return assess(question, outcome.candidate) if isinstance(outcome, Layout) else outcome


def write_layout(layout: Layout | Refused | None, path: Path) -> None:
    """Writes the layout as YAML that a run takes beside its own file.

    Raises:
        UserError: nothing that could run.
    """
    candidate = _runnable(layout, path).candidate
    degrees = asdict(candidate.parallel)
    # How long to wait for a silent peer is no matter of the layout.
    degrees.pop("distributed_timeout_minutes")
    training = {"micro_batch_size": candidate.micro_batch_size}
    text = yaml.safe_dump({"parallel": degrees, "training": training}, sort_keys=False)
    with whole_file(path) as file:
        file.write(f"# {candidate.describe()}\n{text}".encode())


def draw_layout(plan: Plan, layout: Layout | Refused | None, path: Path) -> None:
    """Draws memory and timeline of a layout, even of one that does not fit.

    Raises:
        UserError: nothing that could be drawn.
    """
    from megatron_biollm.planner.picture import draw_plan  # matplotlib takes a second

    if not isinstance(layout, Layout):
        raise UserError(f"no layout to draw into {path}: {_why(layout)}")
    question = plan.question
    draw_plan(
        question.work,
        layout.candidate,
        layout.step,
        question.memory_limit,
        question.gpu.memory_bytes,
        path,
    )


def _runnable(layout: Layout | Refused | None, path: Path) -> Layout:
    if isinstance(layout, Layout) and layout.refusal is None:
        return layout
    reason = layout.refusal if isinstance(layout, Layout) else _why(layout)
    raise UserError(f"no layout to write into {path}: {reason}")


def _why(layout: Refused | None) -> str:
    return layout.reason if layout is not None else "none fits; take more GPUs, or larger ones"


def _rules(config: RunConfig, world_size: int) -> Callable[[ParallelConfig, int], None]:
    def check(parallel: ParallelConfig, micro_batch_size: int) -> None:
        training = replace(config.training, micro_batch_size=micro_batch_size)
        replace(config, parallel=parallel, training=training).check_world(world_size)

    return check


def _predict(work: Work, gpu: Gpu, calibration: Any, candidate: Candidate) -> Any:
    return predict_step(work, candidate, gpu, calibration)


def _notes(config: RunConfig) -> tuple[str, ...]:
    notes = []
    if not config.training.bf16:
        notes.append("planned in bf16; training.bf16=false would train in fp32")
    if config.training.rampup_batch_size:
        notes.append("planned at the full global batch; its ramp is slower per token")
    return tuple(notes)
