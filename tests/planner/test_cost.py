from datetime import datetime

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.planner.cost import Prices, predict_cost


def test_meditron_by_hand():
    # 48B tokens at 40,200 tokens/s on 128 A100: 332 h and 42,496 GPU-hours
    # (https://arxiv.org/abs/2311.16079).
    cost = predict_cost(48e9, 40_200, 128, 400, Prices())
    assert cost.gpu_hours == pytest.approx(42_496, rel=0.001)
    assert cost.days == pytest.approx(332 / 24, rel=0.001)
    assert cost.kwh == pytest.approx(42_453 * 0.4 * 1.8, rel=0.001)
    assert (cost.price, cost.energy_price, cost.co2_tonnes) == (None, None, None)


def test_prices_multiply():
    prices = Prices(per_gpu_hour=2.5, per_kwh=0.2, co2_per_kwh=400, power_overhead=2)
    cost = predict_cost(3600e6, 1e6, 10, 500, prices)  # one hour, 10 GPU-hours, 10 kWh
    assert cost.price == 25
    assert cost.energy_price == pytest.approx(2)
    assert cost.co2_tonnes == pytest.approx(0.004)
    assert cost.finish(datetime(2026, 3, 31, 23)) == datetime(2026, 4, 1, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"per_kwh": -1}, "per_kwh=-1"), ({"power_overhead": 0.5}, "power_overhead=0.5")],
)
def test_prices_out_of_range_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        Prices(**fields)
