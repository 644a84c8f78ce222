"""What a run takes: days, GPU-hours, energy, money, carbon dioxide."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Optional

from megatron_biollm.config import UserError

SECONDS_PER_DAY = 86_400
# Electricity of a machine room for each watt of the boards at their limit: a DGX H100 takes up to
# 10.2 kW for eight boards of 700 W (https://docs.nvidia.com/dgx/dgxh100-user-guide), cooling comes
# on top, and boards stay below their limit for part of a step.
POWER_OVERHEAD = 1.8


@dataclass(frozen=True)
class Prices:
    """What things cost, each None where it is not known.

    Attributes:
        per_gpu_hour: any currency.
        per_kwh: the same currency.
        co2_per_kwh: grams of carbon dioxide per kWh of the grid.
        power_overhead: watts of the machine room for each watt of the GPUs' limit.

    Raises:
        UserError: a negative price, or an overhead below 1.
    """

    per_gpu_hour: Optional[float] = None
    per_kwh: Optional[float] = None
    co2_per_kwh: Optional[float] = None
    power_overhead: float = POWER_OVERHEAD

    def __post_init__(self) -> None:
        for name in ("per_gpu_hour", "per_kwh", "co2_per_kwh"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UserError(f"{name}={value} is a price and must not be negative")
        if self.power_overhead < 1:
            raise UserError(
                f"power_overhead={self.power_overhead} must be at least 1: the room takes what the "
                f"GPUs take, and more"
            )


@dataclass(frozen=True)
class Cost:
    """Attributes:
    days: of computing without a pause.
    gpu_hours: GPUs times hours.
    kwh: electricity of the machine room.
    price: of the GPU-hours; None without a price.
    energy_price: of the electricity; None without a price.
    co2_tonnes: None without the grid's figure.
    """

    days: float
    gpu_hours: float
    kwh: float
    price: Optional[float]
    energy_price: Optional[float]
    co2_tonnes: Optional[float]

    def finish(self, start: datetime) -> datetime:
        """When a run that begins at `start` and never pauses ends."""
        return start + timedelta(days=self.days)


def predict_cost(
    tokens: float, tokens_per_second: float, num_gpus: int, power_watts: float, prices: Prices
) -> Cost:
    """What it takes to train on `tokens` at a rate of all GPUs together.

    power_watts: of one GPU at its limit.
    """
    seconds = tokens / tokens_per_second
    gpu_hours = num_gpus * seconds / 3600
    kwh = gpu_hours * power_watts / 1000 * prices.power_overhead
    return Cost(
        days=seconds / SECONDS_PER_DAY,
        gpu_hours=gpu_hours,
        kwh=kwh,
        price=_times(gpu_hours, prices.per_gpu_hour),
        energy_price=_times(kwh, prices.per_kwh),
        co2_tonnes=_times(kwh / 1e6, prices.co2_per_kwh),
    )


def _times(amount: float, price: Optional[float]) -> Optional[float]:
    return None if price is None else amount * price
