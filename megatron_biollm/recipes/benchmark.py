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
from megatron_biollm.recipes.bars import Bar, least, most
from megatron_biollm.recipes.ceilings import measure_ceilings
from megatron_biollm.recipes.local_world import in_processes
from megatron_biollm.recipes.predicted_memory import Prediction, predict_training
from megatron_biollm.recipes.sides import Outcome, Side, Turns, side_row, take_turns
from megatron_biollm.recipes.timed_training import TimedSteps, measured_on, random_batch
from megatron_biollm.recipes.training_sides import our_side, transformers_side

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
        peer_states: precision of the peers' weights and moments under bf16, each a side of its own.
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
    peer_states: list[str] = field(default_factory=lambda: list(PEER_STATES))
    compile_peer: str = "auto"
    visits: Optional[int] = None
    profile: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compile_peer not in ("auto", "on", "off"):
            raise UserError(f"compile_peer={self.compile_peer} is unknown; choose auto, on or off")
        if unknown := sorted(set(self.peer_states) - set(PEER_STATES)):
            raise UserError(f"peer_states={unknown} unknown; choose from {', '.join(PEER_STATES)}")
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
    if options.processes == 1:
        return _measure(options)
    return in_processes(options.processes, _measure, options)


def _measure(options: TrainBenchmark) -> dict[str, Any]:
    device = options.ready(options.device)
    device.init_distributed(timeout_minutes=10)
    try:
        ceilings = measure_ceilings(device, options.bf16)
        sides = _sides(options, device)
        visits = options.visits
        if visits is None:
            visits = 2 if device.kind == "cuda" else 0
        speaks = torch.distributed.get_rank() == 0
        turns = Turns(options.repeats, visits, options.profile, speaks)
        outcomes = take_turns(sides, device, turns)
    finally:
        destroy_process_groups()
    return _report(options, device, ceilings, sides, outcomes)


def _sides(options: TrainBenchmark, device: Device) -> list[Side]:
    model, count = options.model, options.num_microbatches
    batches = [random_batch(model, options.micro_batch_size) for _ in range(count)]
    with device.core_context():
        groups = create_process_groups(options.parallel)
    sides = [our_side(model, options.parallel, device, groups, options.bf16, batches)]
    compiled = options.compile_peer == "on" or (
        options.compile_peer == "auto" and device.kind == "cuda"
    )
    for state in options.peer_states if options.bf16 else ("fp32",):
        sides.append(transformers_side(model, device, state, batches, compiled=False))
        if compiled:
            sides.append(transformers_side(model, device, state, batches, compiled=True))
    return sides


def _report(
    options: TrainBenchmark,
    device: Device,
    ceilings: dict[str, Any],
    sides: list[Side],
    outcomes: dict[str, Outcome],
) -> dict[str, Any]:
    flops = flops_per_token(options.model) / options.processes
    peak, source = device.peak_tflops(options.bf16)
    rows = [side_row(one, outcomes[one.name], options.tokens_per_step, flops) for one in sides]
    for row in rows:
        row |= shares(row["tflops"], peak, ceilings["matrix_tflops"])
    ours, peers = rows[0], rows[1:]
    rows[0] |= _prediction(options, device).row(ours["peak_memory_bytes"])
    return {
        "rows": rows,
        "ratio": _best_ratio(ours, peers),
        "bars": [bar.row() for bar in _bars(ours, peers, device)],
        "ceilings": ceilings,
        "peak_tflops": peak,
        "peak_source": source,
        "flops_per_token": flops_per_token(options.model),
        "flops_formula": FORMULA,
        "profiles": {name: one.profile for name, one in outcomes.items() if one.profile},
        **measured_on(options, device),
    }


def shares(tflops: Optional[float], peak: float, ceiling: float) -> dict[str, Optional[float]]:
    """Of the data sheet's peak and of the measured product, for a row."""
    known = tflops is not None
    return {
        "mfu": tflops / peak if known and peak else None,
        "of_ceiling": tflops / ceiling if known else None,
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


def _best_ratio(ours: dict[str, Any], peers: list[dict[str, Any]]) -> Optional[float]:
    """Our tokens per second over those of the fastest peer."""
    rates = [row["tokens_per_second"] for row in peers if row["tokens_per_second"]]
    own = ours["tokens_per_second"]
    return own / max(rates) if own and rates else None


def _bars(ours: dict[str, Any], peers: list[dict[str, Any]], device: Device) -> list[Bar]:
    best = _best_ratio(ours, peers)
    if device.kind != "cuda":
        return [least("speed beside the fastest transformers loop", best, 1.0)]
    own = ours["peak_memory_bytes"]
    errors = [abs(e) for e in (ours["rehearsal_error"], ours["planner_error"]) if e is not None]
    bars = [least("speed beside the fastest transformers loop", best, 1.15)]
    for state, chosen in (("of any state", peers), ("of fp32 state", _keeps_fp32(peers))):
        held = [row["peak_memory_bytes"] for row in chosen if row["peak_memory_bytes"]]
        ratio = own / min(held) if own and held else None
        bars.append(most(f"peak memory beside the leanest peer's {state}", ratio, 1.0))
    bars.append(most("memory, error of rehearsal and planner", max(errors, default=None), 0.10))
    return bars


def _keeps_fp32(peers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Peers whose weights and moments are as precise as ours."""
    return [row for row in peers if row["state"].startswith("fp32")]
