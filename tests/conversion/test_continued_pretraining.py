"""Hugging Face weights, a longer vocabulary, and a training run that starts from both."""

import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from megatron_biollm.recipes.convert import ConversionConfig, import_from_hf
from megatron_biollm.tokenizer.extend_files import extend_tokenizer
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer
from tests.conversion.conftest import SIZES
from tests.integration.recipe import layout, log_of, pretrain_here, rows, write_inputs


def test_an_imported_model_with_added_tokens_starts_a_run(
    world, make_hf, tokenizer_folder, tmp_path
):
    base = build_tokenizer(TokenizerConfig(tokenizer_model=str(tokenizer_folder)))
    model = uniform_model(make_hf, base.vocab_size, tmp_path)
    base.save_pretrained(model)
    known = base.transformers_tokenizer.get_vocab()
    pairs = (a + b for a in "abcde" for b in "xyzcrt" if {a, b} <= known.keys())
    added = [pair for pair in pairs if pair not in known][:2]
    extend_tokenizer(tokenizer_folder, added, tmp_path / "extended")
    report = import_from_hf(
        ConversionConfig(model, tmp_path / "imported", tokenizer=tmp_path / "extended")
    )
    assert report["notes"] == ["2 added tokens start as the mean of their sub-tokens"]
    options = [option for option in write_inputs(tmp_path) if not option.startswith("model.")] + [
        f"tokenizer.tokenizer_model={tmp_path / 'extended'}",
        *(f"model.{name}={value}" for name, value in model_sizes().items()),
        f"checkpoint.load={tmp_path / 'imported'}",
        "checkpoint.load_optimizer=false",
        "training.train_iters=1",
        "optimizer.lr_warmup_iters=0",
        f"run_dir={tmp_path / 'run'}",
    ]
    world.run(2, pretrain_here, options + layout(tp=2), joined=False)
    assert "took the weights alone from" in log_of(tmp_path / "run")
    # Every row is as likely as any other: base, added, and core's softmax sees the padding too.
    wanted = math.log(1024)
    assert rows(tmp_path / "run")[1]["loss"] == pytest.approx(wanted, rel=1e-6)


def uniform_model(make_hf, vocab_size, work):
    """Its output rows are zeros, and so are the means of them."""
    folder = shutil.copytree(make_hf(vocab_size=vocab_size, max_shard_size="1GB"), work / "uniform")
    content = load_file(folder / "model.safetensors")
    content["lm_head.weight"] = torch.zeros_like(content["lm_head.weight"])
    save_file(content, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def model_sizes():
    names = {
        "num_layers": "num_hidden_layers",
        "hidden_size": "hidden_size",
        "num_attention_heads": "num_attention_heads",
        "num_query_groups": "num_key_value_heads",
        "ffn_hidden_size": "intermediate_size",
    }
    return {ours: SIZES[theirs] for ours, theirs in names.items()} | {"seq_length": 64}
