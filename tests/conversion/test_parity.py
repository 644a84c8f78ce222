"""The parity gate sees what it must, and its references are the real models."""

from contextlib import nullcontext

import pytest
import torch
from transformers import LlamaForCausalLM

from megatron_biollm.checkpoint.stream import CheckpointReader
from megatron_biollm.config import UserError
from megatron_biollm.conversion.hf_config import read_hf_config, sizes_from_hf
from megatron_biollm.conversion.layered import HuggingFaceModel
from megatron_biollm.conversion.parity import EVERY_ROW, compare_models, probe_tokens
from megatron_biollm.conversion.streamed import blockwise
from megatron_biollm.device.runtime import select_device
from megatron_biollm.recipes.convert import ConversionConfig, import_from_hf
from megatron_biollm.recipes.convert_core import core_model


@pytest.fixture(scope="module")
def step(hf_model, tmp_path_factory):
    output = tmp_path_factory.mktemp("imported")
    import_from_hf(ConversionConfig(hf_model, output))
    return output / "step_00000000"


@pytest.fixture(scope="module")
def sizes(hf_model):
    return sizes_from_hf(read_hf_config(hf_model))


def whole_logits(folder, tokens):
    with torch.no_grad():
        return LlamaForCausalLM.from_pretrained(folder).float()(tokens).logits


def layered_logits(model, tokens, sizes):
    hidden = model.embed(tokens)
    for index in range(sizes.num_layers):
        hidden = model.layer(index, hidden)
    return model.logits(hidden)


def test_transformers_layer_by_layer_is_the_whole_model(hf_model, sizes):
    tokens = probe_tokens(sizes)
    layered = layered_logits(HuggingFaceModel(hf_model), tokens, sizes)
    assert torch.allclose(layered, whole_logits(hf_model, tokens), atol=1e-5)


def test_core_layer_by_layer_is_the_whole_model_of_transformers(hf_model, step, sizes):
    tokens = probe_tokens(sizes)
    with core_model(CheckpointReader(step), sizes) as model:
        layered = layered_logits(model, tokens, sizes)
    assert torch.allclose(layered, whole_logits(hf_model, tokens), atol=1e-4)


def test_the_reference_runs_outside_of_what_core_needs_on_the_cpu(hf_model, step, sizes):
    # transformers loaded inside it is given uninitialised RoPE frequencies without an error.
    seen = []

    def reference():
        seen.append(torch.arange)
        return nullcontext(HuggingFaceModel(hf_model))

    outside = torch.arange
    with select_device("cpu").core_context():
        inside = torch.arange
    compare_models(
        reference, lambda: core_model(CheckpointReader(step), sizes), sizes, torch.float32
    )
    assert seen == [outside] and inside is not outside and torch.arange is outside


class Tampered(CheckpointReader):
    """Gives one wrong weight of layer 2."""

    def __init__(self, folder, name, change):
        super().__init__(folder)
        self.right, self.name, self.change = CheckpointReader(folder), name, change

    def read_rows(self, target, key, layer=None, start=0):
        if not key.endswith(self.name) or layer not in (2, None):
            super().read_rows(target, key, layer, start)
            return
        wrong = self.change(self.right.read(key, layer))
        target.copy_(wrong[start : start + len(target)])


def not_by_group(qkv):
    parts = qkv.unflatten(0, (2, -1)).split([32, 8, 8], dim=1)
    return torch.cat([part.flatten(0, 1) for part in parts])


def interleaved_rope(qkv):
    by_head = qkv.unflatten(0, (-1, 8))
    return by_head[:, [0, 4, 1, 5, 2, 6, 3, 7]].flatten(0, 1)


def one_nan(weight):
    weight[0, 0] = float("nan")
    return weight


@pytest.mark.parametrize(
    ("name", "change", "departs_at"),
    [
        ("linear_fc1.weight", lambda w: torch.cat(w.chunk(2)[::-1]), "layer 2"),
        ("linear_qkv.weight", not_by_group, "layer 2"),
        ("linear_qkv.weight", interleaved_rope, "layer 2"),
        ("linear_proj.weight", lambda w: w.T.contiguous(), "layer 2"),
        ("linear_fc1.layer_norm_weight", lambda w: w * 1.01, "layer 2"),
        ("linear_fc2.weight", one_nan, "layer 2"),
        ("final_layernorm.weight", lambda w: w * 1.01, "logits"),
        ("output_layer.weight", lambda w: w.roll(1, 0), "logits"),
        ("word_embeddings.weight", lambda w: w.roll(1, 0), "embedding"),
    ],
    ids=[
        "gate and up swapped",
        "q, k, v not by group",
        "other RoPE layout",
        "transposed",
        "a norm",
        "one NaN",
        "final norm",
        "output rows shifted",
        "embedding rows shifted",
    ],
)
def test_a_wrong_weight_fails_and_the_report_says_where(
    hf_model, step, sizes, name, change, departs_at
):
    report = compare_models(
        lambda: nullcontext(HuggingFaceModel(hf_model)),
        lambda: core_model(Tampered(step, name, change), sizes),
        sizes,
        torch.float32,
    )
    assert not report.passed and report.first_departure == departs_at
    with pytest.raises(UserError, match=f"no parity.*depart at {departs_at}"):
        report.require()


def test_an_honest_pair_passes_and_every_layer_is_reported(hf_model, step, sizes):
    report = compare_models(
        lambda: nullcontext(HuggingFaceModel(hf_model)),
        lambda: core_model(CheckpointReader(step), sizes),
        sizes,
        torch.float32,
    )
    assert report.passed and report.first_departure is None and report.top_1_agreement == 1.0
    layers = [f"layer {index}" for index in range(4)]
    assert list(report.differences) == ["embedding", EVERY_ROW, *layers, "logits"]


def test_a_wrong_row_of_a_token_that_no_probe_picks_is_seen(hf_model, step, sizes):
    unused = min(set(range(500)) - set(probe_tokens(sizes).flatten().tolist()))

    def change(weight):
        weight[unused] = -weight[unused]
        return weight

    report = compare_models(
        lambda: nullcontext(HuggingFaceModel(hf_model)),
        lambda: core_model(Tampered(step, "word_embeddings.weight", change), sizes),
        sizes,
        torch.float32,
    )
    assert not report.passed and report.first_departure == EVERY_ROW
    assert report.differences["logits"] < 1e-5


def test_threads_change_no_bit_and_blocks_hardly_any(hf_model, sizes):
    def logits(workers, block_bytes):
        with blockwise(workers, block_bytes) as blocks:
            return layered_logits(HuggingFaceModel(hf_model, blocks=blocks), tokens, sizes)

    tokens = probe_tokens(sizes)
    assert torch.equal(logits(1, 5000), logits(3, 5000))
    assert torch.allclose(logits(1, 5000), logits(1, 10**9), atol=1e-5)
