"""Constants of the time model: shipped as data, refitted by validate.py."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

SHIPPED = Path(__file__).parent / "calibration.yaml"


@dataclass(frozen=True)
class Calibration:
    """Constants of the time model; shares are of what the GPU table says.

    Attributes:
        matmul_bf16: of the sustained rate, for BF16 matrix products inside a training step.
        matmul_fp8: likewise for FP8, casts not counted.
        attention: of the sustained BF16 rate, for flash attention.
        memory: of the memory bandwidth, for elementwise kernels and the optimizer.
        elementwise_eager: bytes moved without fused elementwise kernels, in units of fused ones.
        nvlink: of the NVLink bandwidth, for collectives.
        network: of the network bandwidth, for collectives and pipeline sends.
        tp_hidden: of the tensor-parallel collectives that software overlaps with their products.
        interference: of hidden communication, what it takes from the computation that hides it.
        power_exponent: sustained rates follow the power limit to this power.
        host: seconds that the CPU needs to launch one layer, forward and backward.
        host_nanotron: likewise for nanotron with tensor parallelism.
        errors: by precision, within which relative error of tokens/s half, and nine in ten, of the
            published rates were that were not used to fit the constants.
    """

    matmul_bf16: float
    matmul_fp8: float
    attention: float
    memory: float
    elementwise_eager: float
    nvlink: float
    network: float
    tp_hidden: float
    interference: float
    power_exponent: float
    host: float
    host_nanotron: float
    errors: dict[str, tuple[float, float]]

    def host_seconds(self, framework: str) -> float:
        """Seconds to launch one layer, forward and backward."""
        return getattr(self, f"host_{framework}", self.host)


@cache
def load_calibration() -> Calibration:
    """The shipped constants."""
    data = read_shipped()
    fitted = {name: entry["value"] for name, entry in data["fitted"].items()}
    errors = {name: (each["half"], each["nine_in_ten"]) for name, each in data["errors"].items()}
    return Calibration(**fitted, **data["fixed"], errors=errors)


def read_shipped() -> dict:
    """The file as it is: `fitted`, `fixed` and `errors`."""
    return yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
