"""One optimizer step: forward, backward, clip, update; and one forward-only pass."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Optional

import torch
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.pipeline_parallel.p2p_communication import P2PCommunicator

from megatron_biollm.parallel.parallelize import ParallelModel
from megatron_biollm.parallel.precision import DIVISORS
from megatron_biollm.training.objective import Batch, Objective, as_core_wants
from megatron_biollm.training.optimizer import prepare_update
from megatron_biollm.training.phases import Phases
from megatron_biollm.training.rows import batch_hash, on_this_context_rank, pack, trimmed
from megatron_biollm.training.stability import Action

Judge = Callable[[float, float], Action]


class NonFiniteLoss(RuntimeError):
    """The loss or the gradient norm is NaN or infinite; the weights are those of before."""


@dataclass
class StepResult:
    """Attributes:
    loss: mean over what counts, of the whole global batch.
    tokens: what counts: tokens, or whatever else the objective counts.
    grad_norm: global norm before clipping.
    learning_rate: that the update used.
    batch_hash: of the global batch, the same in every layout.
    action: APPLY if the update was made; else the weights are those of before.
    metrics: of the objective, over the whole global batch.
    computed_share: columns of this rank's rows that were not left out as padding, of all.
    """

    loss: float
    tokens: int
    grad_norm: float
    learning_rate: float
    batch_hash: int
    action: Action = Action.APPLY
    metrics: dict[str, float] = field(default_factory=dict)
    computed_share: float = 1.0


@dataclass
class Trainer:
    """What a step needs; the same for pretraining and every fine-tuning recipe.

    Attributes:
        model: trainable chunks of this rank.
        optimizer: core's optimizer.
        scheduler: core's learning-rate schedule.
        seq_length: tokens per sequence.
        micro_batch_size: samples per forward pass.
        packed: documents of a sequence do not see each other; position ids restart at each.
        phases: told what this rank is doing.
        objective: what is trained for.
        computed_share: of the last batches' columns, those that were not left out as padding.
    """

    model: ParallelModel
    optimizer: MegatronOptimizer
    scheduler: OptimizerParamScheduler
    seq_length: int
    micro_batch_size: int
    packed: bool = False
    phases: Phases = field(default_factory=Phases)
    objective: Objective = field(default_factory=Objective)
    computed_share: float = 1.0

    @property
    def device(self) -> torch.device:
        """Of the model on this rank."""
        return next(self.model.chunks[0].parameters()).device

    @property
    def tokens_per_sample(self) -> int:
        """Tokens that a sample of the stream takes, padding included."""
        return self.seq_length * self.objective.rows_per_sample

    def train_step(
        self, batches: Iterator[Batch], num_microbatches: int, judge: Optional[Judge] = None
    ) -> StepResult:
        """Trains on the next `num_microbatches` of this rank.

        judge: says by loss and gradient norm whether the update is made; by default it must be
            finite. The schedule goes on in any case, as it counts steps.

        Raises:
            NonFiniteLoss: on every rank at once, by the default judge.
        """
        for chunk in self.model.chunks:
            chunk.train()
            chunk.zero_grad_buffer()
        self.optimizer.zero_grad()
        with self.phases("data"):
            taken = list(itertools.islice(batches, num_microbatches))
        with self.phases("forward and backward"):
            loss, tokens, metrics = self._run(taken)
        learning_rate = self.optimizer.param_groups[0]["lr"]
        with self.phases("optimizer"):
            grad_norm = prepare_update(self.optimizer)
            action = self._agreed((judge or must_be_finite)(loss, grad_norm))
            if action is Action.APPLY:
                self.optimizer.step_with_ready_grads()
        self.scheduler.step(1)
        hashed = self._global_hash(taken)
        return StepResult(
            loss, tokens, grad_norm, learning_rate, hashed, action, metrics, self.computed_share
        )

    @torch.no_grad()
    def evaluate(
        self,
        batches: Iterator[Batch],
        num_microbatches: int,
        rounds: int = 1,
        between: Callable[[], None] = lambda: None,
    ) -> tuple[float, dict[str, float]]:
        """Mean loss and metrics over the next `num_microbatches` of every rank, `rounds` times.

        The number of rounds does not change a bit of it. `between` is called between them, and
        may raise.
        """
        self._ready_to_evaluate()
        outputs = []
        for number in range(rounds):
            if number:
                between()
            outputs += self._forward_only(batches, num_microbatches)
        loss, _, metrics = self._global_mean(outputs)
        return loss, metrics

    @torch.no_grad()
    def outputs(self, batches: Iterator[Batch], num_microbatches: int) -> list[Batch]:
        """What the objective puts out (`Outcome.outputs`) for each of the next micro-batches.

        Returns:
            In their order on the last pipeline stage, nothing on the others.
        """
        self._ready_to_evaluate()
        found = self._forward_only(batches, num_microbatches)
        return [{k: v for k, v in one.items() if k != "totals"} for one in found]

    @torch.no_grad()
    def outputs_of(self, objective: Objective, batches: list[Batch]) -> list[Batch]:
        """As `outputs`, of another objective on these micro-batches, in the middle of a step."""
        self.model.bring_up_to_date()
        found = replace(self, objective=objective)._schedule(batches, forward_only=True)
        return [{k: v for k, v in one.items() if k != "totals"} for one in found]

    def _ready_to_evaluate(self) -> None:
        self.model.bring_up_to_date()
        for chunk in self.model.chunks:
            chunk.eval()

    def _forward_only(self, batches: Iterator[Batch], num_microbatches: int) -> list[Batch]:
        taken = list(itertools.islice(batches, num_microbatches))
        with self.phases("evaluation"):
            return self._schedule(taken, forward_only=True)

    def _run(self, batches: list[Batch]) -> tuple[float, int, dict[str, float]]:
        return self._global_mean(self._schedule(batches, forward_only=False))

    def _schedule(self, batches: list[Batch], forward_only: bool) -> list[Batch]:
        model, rows = self.model, self.micro_batch_size * self.objective.rows_per_sample
        batches = self.objective.prepared(self, batches)
        columns = self.seq_length
        if not self.packed:
            batches, columns = trimmed(
                batches, columns, _divisor(model), together=model.groups.pp.size() > 1
            )
            widths = [batch["tokens"].shape[-1] for batch in batches]
            self.computed_share = sum(widths) / max(1, len(widths) * self.seq_length)
        if self.packed:
            # One long sequence to core, which wants a batch of one for packed documents.
            rows, columns = 1, rows * columns
        return get_forward_backward_func()(
            forward_step_func=self._forward_step,
            # The interleaved schedule asks every chunk for each micro-batch, in its own time.
            data_iterator=[iter(batches) for _ in model.chunks],
            model=model.chunks,
            num_microbatches=len(batches),
            seq_length=columns,
            micro_batch_size=rows,
            forward_only=forward_only,
            p2p_communicator=P2PCommunicator(model.groups.pp, model.config),
            pg_collection=model.groups,
        )

    def _forward_step(
        self, batches: Iterator[Batch], chunk: torch.nn.Module
    ) -> tuple[torch.Tensor, Callable]:
        self.phases.tick()
        return forward_step(batches, chunk, self.packed, self.model.groups, self.objective)

    def _agreed(self, action: Action) -> Action:
        """The sternest action of any rank: no rank must go on alone."""
        sternest = torch.tensor(int(action), device=self.device)
        for group in (self.model.groups.mp, self.model.groups.dp_cp):  # the world is their product
            if group.size() > 1:
                torch.distributed.all_reduce(sternest, torch.distributed.ReduceOp.MAX, group)
        return Action(sternest.item())

    def _global_hash(self, batches: list[Batch]) -> int:
        mine = torch.tensor(batch_hash(batches), dtype=torch.int64, device=self.device)
        torch.distributed.all_reduce(mine, group=self.model.groups.dp)
        return mine.item() % 2**63

    def _global_mean(self, outputs: list[Batch]) -> tuple[float, int, dict[str, float]]:
        """Mean loss, what counts, and the metrics; one without any weight is None."""
        groups, names = self.model.groups, self.objective.metrics
        total = torch.zeros(2 + 2 * len(names), dtype=torch.float64, device=self.device)
        for output in outputs:
            total += output["totals"]
        torch.distributed.all_reduce(total, group=groups.dp_cp)
        last = torch.distributed.get_process_group_ranks(groups.pp)[-1]
        torch.distributed.broadcast(total, src=last, group=groups.pp)
        loss, tokens, *pairs = total.tolist()
        sums, weights = pairs[::2], pairs[1::2]
        means = [s / w if w else None for s, w in zip(sums, weights, strict=True)]
        return loss / max(tokens, 1.0), int(tokens), dict(zip(names, means, strict=True))


def must_be_finite(loss: float, grad_norm: float) -> Action:
    """Raises NonFiniteLoss unless both are finite."""
    for name, value in (("loss", loss), ("gradient norm", grad_norm)):
        if not math.isfinite(value):
            raise NonFiniteLoss(f"the {name} is {value}")
    return Action.APPLY


def forward_step(
    batches: Iterator[Batch],
    chunk: torch.nn.Module,
    packed: bool,
    groups: Any,
    objective: Objective,
) -> tuple[torch.Tensor, Callable]:
    """One micro-batch through one model chunk, as core's schedules call it."""
    device, whole, extra = next(chunk.parameters()).device, objective.inputs(next(batches)), {}
    if packed:
        # Before the copy: to count documents on a GPU would have the CPU wait for it.
        whole, extra["packed_seq_params"] = pack(whole, device)
    batch = {name: value.to(device, non_blocking=True) for name, value in whole.items()}
    batch = on_this_context_rank(batch, groups.cp.rank(), groups.cp.size())
    output = objective.forward(chunk, batch, **extra)
    return output, lambda last: as_core_wants(
        objective.outcome(last, batch, groups), objective.metrics
    )


def _divisor(model: ParallelModel) -> int:
    """What the layout needs the number of columns to divide by, and kernels like it to."""
    config = model.config
    tensor = config.tensor_model_parallel_size if config.sequence_parallel else 1
    ranks = config.context_parallel_size * tensor
    least = DIVISORS[config.fp8_recipe] * ranks if config.fp8 else 16
    return math.lcm(least, 2 * ranks)
