"""One optimizer step: forward, backward, clip, update; and one forward-only pass."""

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Optional

import torch
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.pipeline_parallel.p2p_communication import P2PCommunicator

from megatron_biollm.parallel.parallelize import ParallelModel
from megatron_biollm.training.loss import summed_loss
from megatron_biollm.training.optimizer import prepare_update
from megatron_biollm.training.phases import Phases
from megatron_biollm.training.stability import Action

Batch = dict[str, torch.Tensor]
MODEL_INPUTS = ("tokens", "labels", "loss_mask", "position_ids")


Judge = Callable[[float, float], Action]


class NonFiniteLoss(RuntimeError):
    """The loss or the gradient norm is NaN or infinite; the weights are those of before."""


@dataclass
class StepResult:
    """Attributes:
    loss: mean over the tokens that count, of the whole global batch.
    tokens: tokens that count.
    grad_norm: global norm before clipping.
    learning_rate: that the update used.
    batch_hash: of the global batch, the same in every layout.
    action: APPLY if the update was made; else the weights are those of before.
    """

    loss: float
    tokens: int
    grad_norm: float
    learning_rate: float
    batch_hash: int
    action: Action = Action.APPLY


@dataclass
class Trainer:
    """What a step needs; the same for pretraining and every fine-tuning recipe.

    Attributes:
        model: trainable chunks of this rank.
        optimizer: core's optimizer.
        scheduler: core's learning-rate schedule.
        seq_length: tokens per sequence.
        micro_batch_size: sequences per forward pass.
        packed: documents of a sequence do not see each other; position ids restart at each.
        phases: told what this rank is doing.
    """

    model: ParallelModel
    optimizer: MegatronOptimizer
    scheduler: OptimizerParamScheduler
    seq_length: int
    micro_batch_size: int
    packed: bool = False
    phases: Phases = field(default_factory=Phases)

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
            loss, tokens = self._run(taken)
        learning_rate = self.optimizer.param_groups[0]["lr"]
        with self.phases("optimizer"):
            grad_norm = prepare_update(self.optimizer)
            action = self._agreed((judge or must_be_finite)(loss, grad_norm))
            if action is Action.APPLY:
                self.optimizer.step_with_ready_grads()
        self.scheduler.step(1)
        hashed = self._global_hash(taken)
        return StepResult(loss, tokens, grad_norm, learning_rate, hashed, action)

    @torch.no_grad()
    def evaluate(
        self,
        batches: Iterator[Batch],
        num_microbatches: int,
        rounds: int = 1,
        between: Callable[[], None] = lambda: None,
    ) -> float:
        """Mean loss per token over the next `num_microbatches` of every rank, `rounds` times.

        The number of rounds does not change a bit of it. `between` is called between them, and
        may raise.
        """
        self.model.bring_up_to_date()
        for chunk in self.model.chunks:
            chunk.eval()
        outputs = []
        for number in range(rounds):
            if number:
                between()
            taken = list(itertools.islice(batches, num_microbatches))
            with self.phases("evaluation"):
                outputs += self._schedule(taken, forward_only=True)
        return self._global_mean(outputs)[0]

    def _run(self, batches: list[Batch]) -> tuple[float, int]:
        return self._global_mean(self._schedule(batches, forward_only=False))

    def _schedule(self, batches: list[Batch], forward_only: bool) -> list[dict[str, torch.Tensor]]:
        model = self.model
        # Packed documents are one long sequence to core, which wants a batch of one for them.
        rows = 1 if self.packed else self.micro_batch_size
        columns = self.seq_length * (self.micro_batch_size if self.packed else 1)
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
        return forward_step(batches, chunk, self.packed, self.model.groups)

    def _agreed(self, action: Action) -> Action:
        """The sternest action of any rank: no rank must go on alone."""
        device = next(self.model.chunks[0].parameters()).device
        sternest = torch.tensor(int(action), device=device)
        for group in (self.model.groups.mp, self.model.groups.dp_cp):  # the world is their product
            if group.size() > 1:
                torch.distributed.all_reduce(sternest, torch.distributed.ReduceOp.MAX, group)
        return Action(sternest.item())

    def _global_hash(self, batches: list[Batch]) -> int:
        device = next(self.model.chunks[0].parameters()).device
        mine = torch.tensor(batch_hash(batches), dtype=torch.int64, device=device)
        torch.distributed.all_reduce(mine, group=self.model.groups.dp)
        return mine.item() % 2**63

    def _global_mean(self, outputs: list[dict[str, torch.Tensor]]) -> tuple[float, int]:
        groups, device = self.model.groups, next(self.model.chunks[0].parameters()).device
        total = torch.zeros(2, dtype=torch.float64, device=device)
        for output in outputs:
            total += output["loss_and_tokens"]
        torch.distributed.all_reduce(total, group=groups.dp_cp)
        last = torch.distributed.get_process_group_ranks(groups.pp)[-1]
        torch.distributed.broadcast(total, src=last, group=groups.pp)
        loss, tokens = total.tolist()
        return loss / max(tokens, 1.0), int(tokens)


def must_be_finite(loss: float, grad_norm: float) -> Action:
    """Raises NonFiniteLoss unless both are finite."""
    for name, value in (("loss", loss), ("gradient norm", grad_norm)):
        if not math.isfinite(value):
            raise NonFiniteLoss(f"the {name} is {value}")
    return Action.APPLY


def forward_step(
    batches: Iterator[Batch], chunk: torch.nn.Module, packed: bool, groups: Any
) -> tuple[torch.Tensor, Callable]:
    """One micro-batch through one model chunk, as core's schedules call it."""
    device, whole = next(chunk.parameters()).device, next(batches)
    batch = {name: whole[name].to(device, non_blocking=True) for name in MODEL_INPUTS}
    extra = {}
    if packed:
        batch, extra["packed_seq_params"] = pack(batch)
    batch = on_this_context_rank(batch, groups.cp.rank(), groups.cp.size())
    token_loss = chunk(
        batch["tokens"], batch["position_ids"], None, labels=batch["labels"], **extra
    )
    return token_loss, partial(summed_loss, loss_mask=batch["loss_mask"])


def pack(batch: Batch) -> tuple[Batch, PackedSeqParams]:
    """Joins the rows to one sequence of documents; each starts where its position id is 0.

    Args:
        batch: [b, s] tensors.

    Returns:
        [1, b*s] tensors and the boundaries of the documents.
    """
    flat = {name: value.reshape(1, -1) for name, value in batch.items()}
    starts = (flat["position_ids"][0] == 0).nonzero()[:, 0]
    end = starts.new_tensor([flat["tokens"].shape[1]])
    boundaries = torch.cat((starts, end)).to(torch.int32)
    longest = int(boundaries.diff().max())
    return flat, PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=boundaries,
        cu_seqlens_kv=boundaries,
        max_seqlen_q=longest,
        max_seqlen_kv=longest,
    )


def on_this_context_rank(batch: Batch, rank: int, size: int) -> Batch:
    """Keeps chunks `rank` and `2 * size - 1 - rank` of 2 * size along the sequence.

    Core has the same function, with signatures that differ over the supported range.

    Args:
        batch: [b, s] tensors; s divides by 2 * size.
        rank: of this process in the context-parallel group.
        size: of that group.
    """
    if size == 1:
        return batch
    kept = {}
    for name, value in batch.items():
        chunks = value.chunk(2 * size, dim=1)
        kept[name] = torch.cat((chunks[rank], chunks[2 * size - 1 - rank]), dim=1)
    return kept


def batch_hash(batches: Iterable[Batch]) -> int:
    """Sum modulo 2**63 of the hashes of the sequences: the same for every layout and order."""
    total = 0
    for batch in batches:
        for row in batch["tokens"]:
            digest = hashlib.blake2b(row.numpy().tobytes(), digest_size=8).digest()
            total += int.from_bytes(digest, "big")
    return total % 2**63
