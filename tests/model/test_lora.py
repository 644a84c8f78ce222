"""An adapter beside a layer that has its norm inside, as Transformer Engine's fused one."""

import pytest
import torch
from torch.nn.functional import linear, rms_norm

from megatron_biollm.device.runtime import select_device
from megatron_biollm.model.lora import add_adapters
from megatron_biollm.model.lora_config import LoraConfig
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.parallel.parallelize import parallelize
from megatron_biollm.parallel.process_groups import create_process_groups
from tests.integration.small_run import SmallRun

LORA = LoraConfig(rank=4, alpha=8.0, target_modules=["linear_fc1"])
PATH = "decoder.layers.0.mlp"


class Fused(torch.nn.Module):
    """Norm and product in one, under Transformer Engine's names of its parameters."""

    def __init__(self, weight):
        super().__init__()
        self.weight, self.eps = torch.nn.Parameter(weight), 1e-5
        self.layer_norm_weight = torch.nn.Parameter(torch.rand(weight.shape[1]) + 0.5)

    def forward(self, x):
        normed = rms_norm(x, self.layer_norm_weight.shape, self.layer_norm_weight, self.eps)
        return linear(normed, self.weight), None


def added_beside_a_fused_layer():
    """What the adapter adds to a layer's output, and what it should, with and without the norm."""
    groups = create_process_groups(ParallelConfig())
    model = parallelize(
        SmallRun().sizes, ParallelConfig(), select_device("cpu"), groups, False, 1, trainable=False
    )
    (chunk,) = model.chunks
    for layer in chunk.decoder.layers:
        layer.mlp.linear_fc1 = Fused(layer.mlp.linear_fc1.weight.detach().clone())
    mlp = chunk.get_submodule(PATH)
    x = torch.randn(5, 2, SmallRun().sizes.hidden_size)
    before = mlp.linear_fc1(x)[0].detach()
    add_adapters(chunk, LORA, model.config, groups)
    adapter = mlp.linear_fc1_lora
    torch.nn.init.normal_(adapter.a)
    torch.nn.init.normal_(adapter.b)
    fused = mlp.linear_fc1
    normed = rms_norm(x, fused.layer_norm_weight.shape, fused.layer_norm_weight, fused.eps)
    added = mlp.linear_fc1(x)[0] - before
    expected = [LORA.scale * given @ adapter.a.T @ adapter.b.T for given in (normed, x)]
    return [each.detach() for each in (added, *expected)]


def test_an_adapter_sees_what_the_layer_multiplies(world):
    added, normed, raw = world.run(1, added_beside_a_fused_layer)[0]
    assert torch.allclose(added, normed, rtol=1e-4, atol=1e-3)
    assert not torch.allclose(added, raw, rtol=1e-1, atol=1e-1)


def merged_in_bf16():
    """The largest change of a weight by merging adapters whose B is zero, and by others."""
    from megatron_biollm.model.lora import merge_adapters

    groups = create_process_groups(ParallelConfig())
    model = parallelize(
        SmallRun().sizes, ParallelConfig(), select_device("cpu"), groups, True, 1, trainable=False
    )
    chunk = model.chunks[0].module
    weight = chunk.get_submodule(PATH).linear_fc1.weight
    before, (rows, columns) = weight.detach().clone(), weight.shape
    changes = []
    for b in (torch.zeros(rows, 4), torch.ones(rows, 4)):
        merge_adapters(chunk, LORA, lambda *_, b=b: (torch.ones(4, columns), b), groups)
        changes.append((weight - before).abs().max().item())
    return changes


def test_merging_nothing_changes_nothing_and_something_its_product(world):
    nothing, something = world.run(1, merged_in_bf16)[0]
    assert nothing == 0.0 and something == pytest.approx(LORA.scale * 4, rel=1e-2)
