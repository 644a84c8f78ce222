import pytest

from megatron_biollm.config import UserError
from megatron_biollm.parallel.precision import Fp8
from megatron_biollm.recipes.run_config import load_run_config

TINY = "model.preset=tiny"
FP8 = ["training.bf16=true", "training.fp8=hybrid"]
TP = "parallel.tensor_model_parallel_size"
PP = "parallel.pipeline_model_parallel_size"
VPP = "parallel.virtual_pipeline_model_parallel_size"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([f"{TP}=3"], "model.num_attention_heads=8 is not divisible by .*=3"),
        ([f"{PP}=3"], "model.num_layers=4 is not divisible by the 3 pipeline stages"),
        (["training.micro_batch_size=3"], "global_batch_size=8 is not divisible by .* = 3"),
        (["data.reset_attention_mask=true"], "needs data.reset_position_ids=true"),
        (
            [
                "data.reset_attention_mask=true",
                "data.reset_position_ids=true",
                "parallel.context_parallel_size=2",
            ],
            "reset_attention_mask=true does not go with parallel.context_parallel_size=2",
        ),
        (["optimizer.lr_warmup_iters=101"], "lr_warmup_iters=101 exceeds the 100 steps"),
        (
            ["optimizer.lr_warmup_iters=21", "optimizer.lr_decay_iters=20"],
            "lr_warmup_iters=21 exceeds the 20 steps",
        ),
        (
            [
                "optimizer.lr_decay_style=WSD",
                "optimizer.lr_wsd_decay_iters=91",
                "optimizer.lr_warmup_iters=10",
            ],
            "lr_warmup_iters=10 and lr_wsd_decay_iters=91 together exceed the 100 steps",
        ),
        (
            [*FP8, "model.transformer_impl=local"],
            "training.fp8=hybrid needs Transformer Engine's layers, but .*transformer_impl=local",
        ),
        (
            [*FP8, "model.ffn_hidden_size=1000"],
            "fp8_recipe=tensorwise .* divide by 16, but model.ffn_hidden_size / .* = 1000 does not",
        ),
        (
            [*FP8, "training.fp8_recipe=blockwise", f"{TP}=4"],
            "fp8_recipe=blockwise .* divide by 128, but hidden_size / tensor_model.* = 32 does not",
        ),
        (
            ["model.num_layer=3"],
            "unknown config key model.num_layer: did you mean model.num_layers",
        ),
    ],
)
def test_sections_that_contradict_each_other_are_refused_with_the_remedy(overrides, message):
    with pytest.raises(UserError, match=message):
        load_run_config(None, [TINY, *overrides])


@pytest.mark.parametrize(
    ("overrides", "world_size", "message"),
    [
        ([f"{TP}=2", f"{PP}=2"], 6, "world size 6 is not a multiple of .* = 4; start a multiple"),
        ([], 3, "global_batch_size=8 is not divisible by .*data-parallel size 3"),
        ([f"{PP}=2", f"{VPP}=2"], 16, r"needs micro-batches per step \(1 for 8 sequences\)"),
        (
            [f"{PP}=2", f"{VPP}=2", "training.rampup_batch_size=[2,1,30]"],
            2,
            r"needs micro-batches per step \(1 for 1 sequences\)",
        ),
    ],
)
def test_a_world_that_does_not_fit_is_refused_with_the_remedy(overrides, world_size, message):
    config = load_run_config(None, [TINY, *overrides])
    with pytest.raises(UserError, match=message):
        config.check_world(world_size)


def test_a_world_that_fits_is_accepted():
    load_run_config(None, [TINY, f"{TP}=2", f"{PP}=2", f"{VPP}=2"]).check_world(8)


def test_the_vocabulary_size_comes_from_the_tokenizer():
    config = load_run_config(None, [TINY])
    config.set_vocab_size(1000, "the tokenizer")
    assert (config.model.vocab_size, config.model.padded_vocab_size) == (1000, 1024)


def test_a_vocabulary_of_another_size_is_refused_with_the_remedy():
    config = load_run_config(None, [TINY, "model.vocab_size=999"])
    message = "model.vocab_size=999, but the tokenizer has 1000 entries; unset model.vocab_size"
    with pytest.raises(UserError, match=message):
        config.set_vocab_size(1000, "the tokenizer")


def test_a_vocabulary_that_does_not_fit_the_layout_is_refused():
    config = load_run_config(None, [TINY, "model.make_vocab_size_divisible_by=1", f"{TP}=2"])
    with pytest.raises(UserError, match="padded vocabulary=1001 is not divisible by .*=2"):
        config.set_vocab_size(1001, "the tokenizer")


def test_fp8_reaches_the_run_and_bf16_does_not_ask_for_its_sizes():
    config = load_run_config(None, [TINY, *FP8, "training.fp8_recipe=delayed"])
    assert config.training.fp8_products == Fp8("hybrid", "delayed", 1024)
    assert load_run_config(None, [TINY, "model.ffn_hidden_size=1000"]).training.fp8_products is None
