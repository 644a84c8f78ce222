"""What every benchmark of steps reports of its sides, whatever they compute."""

from typing import Any, Optional

from megatron_biollm.device.runtime import Device
from megatron_biollm.recipes.benchmarks.sides import Outcome, Side, side_row
from megatron_biollm.recipes.benchmarks.timed_training import measured_on


def peer_kinds(compile_peer: str, device: Device) -> tuple[bool, ...]:
    """Whether a peer is compiled, for each of its sides: as it is always, compiled as asked for."""
    asked = {"on": True, "off": False, "auto": device.kind == "cuda"}[compile_peer]
    return (False, True) if asked else (False,)


def speed_report(
    options: Any,
    device: Device,
    ceilings: dict[str, Any],
    sides: list[Side],
    outcomes: dict[str, Outcome],
    flops: float,
    formula: str,
    processes: int = 1,
) -> dict[str, Any]:
    """What every report of steps says: a row for each side, the limits, and what they are made of.

    flops: of a token, by `formula`. processes: that share them.
    """
    peak, source = device.peak_tflops(options.bf16)
    tokens, each = options.tokens_per_step, flops / processes
    rows = [side_row(side, outcomes[side.name], tokens, each) for side in sides]
    for row in rows:
        row |= _shares(row["tflops"], peak, ceilings["matrix_tflops"])
    return {
        "rows": rows,
        "ceilings": ceilings,
        "peak_tflops": peak,
        "peak_source": source,
        "flops_per_token": flops,
        "flops_formula": formula,
        "profiles": {name: one.profile for name, one in outcomes.items() if one.profile},
        **measured_on(options, device),
    }


def _shares(tflops: Optional[float], peak: float, ceiling: float) -> dict[str, Optional[float]]:
    """Of the data sheet's peak and of the measured product, for a row."""
    known = tflops is not None
    return {
        "mfu": tflops / peak if known and peak else None,
        "of_ceiling": tflops / ceiling if known else None,
    }
