"""How fast a run is: tokens per second, TFLOP/s per device, MFU, with formula and peak named."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Throughput:
    """Turns measured times into the speed fields of a metrics row.

    Attributes:
        flops_per_token: model FLOPs to train on one token, forward and backward.
        num_devices: devices that share the work, all ranks of the run.
        peak_tflops: TFLOP/s of one device at best, in the run's precision; 0 where unknown.
        peak_source: where that peak is from.
    """

    flops_per_token: float
    num_devices: int
    peak_tflops: float
    peak_source: str

    def row(self, tokens: int, seconds: float, steps: int = 1, peak_memory_bytes: int = 0) -> dict:
        """The speed fields for ``steps`` steps that took ``seconds`` over ``tokens`` in all.

        ``mfu`` is a fraction, None where the peak is unknown; ``peak_memory_gb`` counts 10^9
        bytes, and everything else is an average over those steps.
        """
        tokens_per_second = tokens / seconds
        tflops = tokens_per_second * self.flops_per_token / self.num_devices / 1e12
        return {
            "step_time_s": seconds / steps,
            "tokens_per_second": tokens_per_second,
            "tflops_per_device": tflops,
            "mfu": tflops / self.peak_tflops if self.peak_tflops > 0 else None,
            "peak_memory_gb": peak_memory_bytes / 1e9,
        }

    def describe(self) -> str:
        """The formula and the peak, for the head of a run's log."""
        if self.peak_tflops <= 0:
            return f"MFU is not reported: no peak TFLOP/s ({self.peak_source})"
        return (
            "MFU = tokens per second x FLOPs per token / (devices x peak): "
            f"{self.num_devices} device{'s' * (self.num_devices != 1)} of "
            f"{self.peak_tflops:.4g} TFLOP/s ({self.peak_source})"
        )
