"""How fast the layers are at a large model's widths: forward and backward, without an optimizer.

A step runs micro-batches of random hidden states through the layers and the final norm, forward and
backward, and adds the weights' gradients up as a training step does: ours into fp32 main gradients,
the peer into gradients of the weights' type. Embedding, output layer, loss and optimizer are left
out of the step and of its FLOPs.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from megatron_biollm.config import UserError
from megatron_biollm.device.runtime import Device
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.parallel.process_groups import create_process_groups, destroy_process_groups
from megatron_biollm.recipes.benchmarks.bars import Bar, least, most
from megatron_biollm.recipes.benchmarks.ceilings import measure_ceilings
from megatron_biollm.recipes.benchmarks.layer_sides import (
    FP8,
    VARIANTS,
    Passes,
    Variant,
    as_many_as_fit,
    layers_alone,
    layers_flops,
    our_side,
    peer_side,
    predict_layers,
)
from megatron_biollm.recipes.benchmarks.predicted_memory import Prediction
from megatron_biollm.recipes.benchmarks.sides import Outcome, Side, Turns, take_turns
from megatron_biollm.recipes.benchmarks.speed_report import peer_kinds, speed_report
from megatron_biollm.recipes.benchmarks.timed_training import OURS, TimedSteps

FORMULA = "6·L·(2h² + 2hgd + 3hf) + 6·L·h·s (layers alone)"


@dataclass(kw_only=True)
class LayersBenchmark(TimedSteps):
    """What to measure.

    Attributes:
        layers: how many; as many as fit if None (on the CPU one).
        micro_batch_size: sequences per forward pass.
        num_microbatches: forward and backward passes per step.
        device: cpu, cuda or auto.
        bf16: bf16 weights and products.
        variants: of our layers, by name; all if empty.
        compile_peer, visits, profile: as in `TrainBenchmark`.

    Raises:
        UserError: numbers below 1, or an unknown variant.
    """

    layers: Optional[int] = None
    micro_batch_size: int = 1
    num_microbatches: int = 2
    device: str = "auto"
    bf16: bool = False
    variants: list[str] = field(default_factory=list)
    compile_peer: str = "auto"
    visits: Optional[int] = None
    profile: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        known = [variant.name for variant in VARIANTS]
        if unknown := sorted(set(self.variants) - set(known)):
            raise UserError(f"variants={unknown} unknown; choose from {'; '.join(known)}")
        if self.layers is not None and self.layers < 1:
            raise UserError(f"layers={self.layers} must be at least 1")

    def _check_vocabulary(self) -> None:
        """The layers have none."""

    @property
    def passes(self) -> Passes:
        """What a step runs through the layers."""
        return Passes(self.micro_batch_size, self.num_microbatches, self.bf16)

    @property
    def tokens_per_step(self) -> int:
        """Tokens that go through the layers in a step."""
        return self.micro_batch_size * self.num_microbatches * self.model.seq_length

    def chosen(self) -> list[Variant]:
        """The variants to measure, in the order of the table."""
        return [one for one in VARIANTS if not self.variants or one.name in self.variants]


def benchmark_layers(options: LayersBenchmark) -> dict[str, Any]:
    """Times the layers of all variants and of transformers in turns, one process.

    Returns:
        Medians and spread per side, ceilings, memory beside its prediction, bars, and what they
        were measured on.
    """
    device = options.ready(options.device)
    device.init_distributed(timeout_minutes=10)
    try:
        ceilings = measure_ceilings(device, options.bf16)
        layers = options.layers or as_many_as_fit(options.model, options.passes, device)
        options = replace(options, layers=layers, model=layers_alone(options.model, layers))
        sides = _sides(options, device)
        turns = Turns(options.repeats, options.visits, options.profile)
        outcomes = take_turns(sides, device, turns)
    finally:
        destroy_process_groups()
    return _report(options, device, ceilings, sides, outcomes)


def _sides(options: LayersBenchmark, device: Device) -> list[Side]:
    model, passes = options.model, options.passes
    with device.core_context():
        groups = create_process_groups(ParallelConfig())
    sides = [our_side(model, variant, passes, device, groups) for variant in options.chosen()]
    for compiled in peer_kinds(options.compile_peer, device):
        sides.append(peer_side(model, passes, device, compiled=compiled))
    return sides


def _report(
    options: LayersBenchmark,
    device: Device,
    ceilings: dict[str, Any],
    sides: list[Side],
    outcomes: dict[str, Outcome],
) -> dict[str, Any]:
    flops = layers_flops(options.model)
    report = speed_report(options, device, ceilings, sides, outcomes, flops, FORMULA)
    rows = report["rows"]
    for row, variant in zip(rows, options.chosen(), strict=False):
        row |= _prediction(options, variant, device, row).row(row["peak_memory_bytes"])
    return report | {"bars": [bar.row() for bar in layer_bars(rows, device.kind)]}


def _prediction(
    options: LayersBenchmark, variant: Variant, device: Device, row: dict[str, Any]
) -> Prediction:
    if not options.bf16 or device.kind != "cuda":
        return Prediction(reason="the rehearsal knows bf16 runs on GPUs")
    if row["reason"]:
        return Prediction(reason="did not run")
    return predict_layers(options.model, variant, options.passes)


def layer_bars(rows: list[dict[str, Any]], device_kind: str) -> list[Bar]:
    """What the layers must reach: shares of the peak and of the ceiling, memory, predictions."""
    ours = [row for row in rows if row["name"].startswith(OURS)]
    peers = [row for row in rows if not row["name"].startswith(OURS)]
    fp8 = [row for row in ours if row["name"].endswith(FP8)]
    ours = [row for row in ours if row not in fp8]
    speed = _extreme(max, ours, "tokens_per_second")
    beside = _ratio(speed, _extreme(max, peers, "tokens_per_second"))
    if device_kind != "cuda":
        return [least("speed beside the fastest peer", beside, 1.0)]
    errors = [
        abs(row[name])
        for row in [*ours, *fp8]
        for name in ("rehearsal_error", "planner_error")
        if row.get(name) is not None
    ]
    memory = _ratio(
        _extreme(min, ours, "peak_memory_bytes"), _extreme(min, peers, "peak_memory_bytes")
    )
    return [
        *_shares_of(ours),
        least("speed beside the fastest peer", beside, 1.0),
        least("FP8 beside bf16", _ratio(_extreme(max, fp8, "tokens_per_second"), speed), 1.25),
        most("peak memory beside the leanest peer's", memory, 1.0),
        most("memory, error of rehearsal and planner", max(errors, default=None), 0.10),
    ]


def _shares_of(ours: list[dict[str, Any]]) -> list[Bar]:
    """Of the data sheet's peak and of the measured ceiling, with and without recomputation."""
    kinds = (
        ("nothing recomputed", [row for row in ours if "selective" not in row["name"]]),
        ("selective recomputation", [row for row in ours if "selective" in row["name"]]),
    )
    return [
        least(f"share of the {what}, {kind}", _extreme(max, rows, name), bar)
        for kind, rows in kinds
        for what, name, bar in (("peak (MFU)", "mfu", 0.55), ("ceiling", "of_ceiling", 0.70))
    ]


def _extreme(which: Callable, rows: list[dict[str, Any]], name: str) -> Optional[float]:
    return which((row[name] for row in rows if row.get(name)), default=None)


def _ratio(one: Optional[float], other: Optional[float]) -> Optional[float]:
    return one / other if one and other else None
