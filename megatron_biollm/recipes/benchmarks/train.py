"""How fast training is here, beside what people would pick instead, in one run.

All sides train the same network (padded vocabulary included) on the same batch with the same number
of threads, in turns, so that whatever else the machine does meets all of them. A ratio is that of
the median step times. What the machine can do at most is measured first.
"""

from dataclasses import dataclass, field
from typing import Any, Optional

import torch

from megatron_biollm.config import UserError
from megatron_biollm.device.runtime import Device
from megatron_biollm.model.flops import FORMULA, flops_per_token
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.parallel.process_groups import create_process_groups, destroy_process_groups
from megatron_biollm.recipes.benchmarks.bars import Bar, least, most
from megatron_biollm.recipes.benchmarks.ceilings import measure_ceilings
from megatron_biollm.recipes.benchmarks.local_world import in_processes
from megatron_biollm.recipes.benchmarks.predicted_memory import Prediction, predict_training
from megatron_biollm.recipes.benchmarks.sides import Outcome, Side, Turns, take_turns
from megatron_biollm.recipes.benchmarks.speed_report import peer_kinds, speed_report
from megatron_biollm.recipes.benchmarks.timed_training import OURS, TimedSteps, random_batch
from megatron_biollm.recipes.benchmarks.torchtitan_side import TORCHTITAN, torchtitan_side
from megatron_biollm.recipes.benchmarks.training_sides import PEER, our_side, transformers_side
from megatron_biollm.training.step import Batch

PEER_STATES = ("bf16", "autocast")


@dataclass(kw_only=True)
class TrainBenchmark(TimedSteps):
    """What to measure.

    Attributes:
        parallel: layout of our side; peers are data parallel over the same processes.
        micro_batch_size: sequences per forward pass.
        num_microbatches: forward passes per step, of all processes together.
        processes: of each side.
        device: cpu, cuda or auto.
        bf16: bf16 matrix products; ours keep fp32 master weights.
        peers: transformers, torchtitan.
        peer_states: precision of transformers' weights and moments under bf16, each its own side.
        compile_peer: on, off, or auto (on a GPU).
        visits: how often each side is built anew; 0 builds all at once; unset 2 on a GPU, else 0.
        profile: record one step of each side.

    Raises:
        UserError: unknown names, or batches that do not divide.
    """

    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    micro_batch_size: int = 8
    num_microbatches: int = 1
    processes: int = 1
    device: str = "auto"
    bf16: bool = False
    peers: list[str] = field(default_factory=lambda: [PEER])
    peer_states: list[str] = field(default_factory=lambda: list(PEER_STATES))
    compile_peer: str = "auto"
    visits: Optional[int] = None
    profile: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compile_peer not in ("auto", "on", "off"):
            raise UserError(f"compile_peer={self.compile_peer} is unknown; choose auto, on or off")
        for name, known in (("peers", (PEER, TORCHTITAN)), ("peer_states", PEER_STATES)):
            if unknown := sorted(set(getattr(self, name)) - set(known)):
                raise UserError(f"{name}={unknown} unknown; choose from {', '.join(known)}")
        if self.num_microbatches % self.processes:
            raise UserError(
                f"num_microbatches={self.num_microbatches} is not divisible by "
                f"processes={self.processes}, which share them; give a multiple of it"
            )
        self.parallel.data_parallel_size(self.processes)

    @property
    def tokens_per_step(self) -> int:
        """Tokens that each side trains on in a step, all processes together."""
        return self.micro_batch_size * self.num_microbatches * self.model.seq_length


def benchmark_training(options: TrainBenchmark) -> dict[str, Any]:
    """Times training steps of all sides in turns, in as many processes as asked for.

    Returns:
        Medians and spread per side, ratios, ceilings, memory beside its prediction, bars, and what
        they were measured on.
    """
    return in_processes(options.processes, _measure, options)


def _measure(options: TrainBenchmark) -> dict[str, Any]:
    device = options.ready(options.device)
    device.init_distributed(timeout_minutes=10)
    try:
        ceilings = measure_ceilings(device, options.bf16)
        sides = _sides(options, device)
        speaks = torch.distributed.get_rank() == 0
        turns = Turns(options.repeats, options.visits, options.profile, speaks)
        outcomes = take_turns(sides, device, turns)
    finally:
        destroy_process_groups()
    return _report(options, device, ceilings, sides, outcomes)


def _sides(options: TrainBenchmark, device: Device) -> list[Side]:
    model, rows, count = options.model, options.micro_batch_size, options.num_microbatches
    batches = [random_batch(model, rows) for _ in range(count)]
    with device.core_context():
        groups = create_process_groups(options.parallel)
    sides = [our_side(model, options.parallel, device, groups, options.bf16, batches)]
    if PEER in options.peers:
        sides += _transformers_sides(options, device, batches)
    if TORCHTITAN in options.peers:
        sides.append(torchtitan_side(model, rows, count))
    return sides


def _transformers_sides(
    options: TrainBenchmark, device: Device, batches: list[Batch]
) -> list[Side]:
    return [
        transformers_side(options.model, device, state, batches, compiled)
        for state in (options.peer_states if options.bf16 else ("fp32",))
        for compiled in peer_kinds(options.compile_peer, device)
    ]


def _report(
    options: TrainBenchmark,
    device: Device,
    ceilings: dict[str, Any],
    sides: list[Side],
    outcomes: dict[str, Outcome],
) -> dict[str, Any]:
    flops = flops_per_token(options.model)
    measured = (options, device, ceilings, sides, outcomes)
    report = speed_report(*measured, flops, FORMULA, options.processes)
    rows = report["rows"]
    rows[0] |= _prediction(options, device).row(rows[0]["peak_memory_bytes"])
    bars = training_bars(rows, device.kind, options.peers)
    return report | {
        "ratios": {peer: _best_ratio(rows, peer) for peer in options.peers},
        "bars": [bar.row() for bar in bars],
    }


def _prediction(options: TrainBenchmark, device: Device) -> Prediction:
    if not options.bf16 or device.kind != "cuda":
        return Prediction(reason="the rehearsal knows bf16 runs on GPUs")
    return predict_training(
        options.model,
        options.parallel,
        options.micro_batch_size,
        options.num_microbatches,
        options.processes,
    )


def _best_ratio(rows: list[dict[str, Any]], peer: str) -> Optional[float]:
    """Our tokens per second over those of the fastest side of that peer."""
    rates = [row["tokens_per_second"] for row in _of(rows, peer) if row["tokens_per_second"]]
    own = [row["tokens_per_second"] for row in _of(rows, OURS) if row["tokens_per_second"]]
    return max(own) / max(rates) if own and rates else None


def _of(rows: list[dict[str, Any]], who: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["name"].startswith(who)]


def training_bars(rows: list[dict[str, Any]], device_kind: str, peers: list[str]) -> list[Bar]:
    """What training must reach: speed beside each peer; on a GPU memory and its prediction too."""
    bars = []
    if PEER in peers:
        bar = 1.15 if device_kind == "cuda" else 1.0
        bars.append(
            least("speed beside the fastest transformers loop", _best_ratio(rows, PEER), bar)
        )
    if TORCHTITAN in peers:
        bars.append(least("speed beside torchtitan", _best_ratio(rows, TORCHTITAN), 1.0))
    return bars + (_memory_bars(rows) if device_kind == "cuda" else [])


def _memory_bars(rows: list[dict[str, Any]]) -> list[Bar]:
    ours = _of(rows, OURS)
    own = [row["peak_memory_bytes"] for row in ours if row["peak_memory_bytes"]]
    others = [row for row in rows if row not in ours and row["peak_memory_bytes"]]
    precise = [row for row in others if row["state"].startswith("fp32")]
    bars = []
    for whose, chosen in (
        ("the leanest peer's", others),
        ("that of peers with fp32 state", precise),
    ):
        held = min((row["peak_memory_bytes"] for row in chosen), default=None)
        bars.append(
            most(f"peak memory beside {whose}", min(own) / held if own and held else None, 1)
        )
    errors = [
        abs(row[name])
        for row in ours
        for name in ("rehearsal_error", "planner_error")
        if row.get(name) is not None
    ]
    return [*bars, most("memory, error of rehearsal and planner", max(errors, default=None), 0.10)]
