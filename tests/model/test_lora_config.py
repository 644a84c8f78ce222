"""The adapters' options, and the names of their weights."""

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.model.lora_config import LoraConfig, adapter_keys, is_adapter


def test_nothing_is_adapted_unless_a_rank_is_given():
    assert LoraConfig().rank == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": -1}, "rank=-1 must be 1 or more"),
        ({"rank": 4, "alpha": 0.0}, "alpha=0.0 must be above 0"),
        ({"rank": 4, "target_modules": []}, "names no layer"),
        ({"rank": 4, "target_modules": ["linear_qkv", "linear_qkv"]}, "or one twice"),
        ({"rank": 4, "target_modules": ["q_proj"]}, "q_proj is a part of linear_qkv"),
        ({"rank": 4, "target_modules": ["embedding"]}, "not a layer"),
    ],
)
def test_what_cannot_be_adapted_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        LoraConfig(**fields)


def test_an_adapter_has_keys_of_its_own_beside_the_weight():
    weight = "decoder.layers.*.mlp.linear_fc1.weight"
    keys = adapter_keys(weight)
    assert keys == (
        "decoder.layers.*.mlp.linear_fc1_lora.a",
        "decoder.layers.*.mlp.linear_fc1_lora.b",
    )
    assert all(map(is_adapter, keys)) and not is_adapter(weight)
