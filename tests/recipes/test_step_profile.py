import pytest
import torch

from megatron_biollm.device.runtime import select_device
from megatron_biollm.recipes.step_profile import profile_step, profile_table


def test_the_largest_items_and_the_rest_make_up_the_whole():
    a = torch.ones(64, 64)
    found = profile_step(lambda: (a @ a).relu_().add_(1).mul_(2), select_device("cpu"), items=2)
    assert len(found["items"]) == 2
    assert found["items"][0]["seconds"] >= found["items"][1]["seconds"]
    listed = sum(item["seconds"] for item in found["items"])
    assert listed + found["others_s"] == pytest.approx(found["busy_s"])
    text = profile_table("ours", found, step_s=2.0, least_s=0.5)
    assert "(25.0%)" in text
    assert text.count("\n| `") == 2
