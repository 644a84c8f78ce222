import pytest

from megatron_biollm.config import UserError
from megatron_biollm.model.config import PRESETS, ModelConfig
from megatron_biollm.model.flops import num_parameters
from megatron_biollm.parallel.layout import ParallelConfig, check_model_fits_layout

SIZES = {
    "num_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 8,
    "ffn_hidden_size": 96,
    "seq_length": 32,
}


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_every_preset_loads_and_is_parallel_to_degree_two(preset):
    sizes = ModelConfig(preset=preset, vocab_size=34000)
    degrees = {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2}
    check_model_fits_layout(sizes, ParallelConfig(**degrees))


@pytest.mark.parametrize(
    ("preset", "billions"), [("1b", 1.1), ("3b", 3.0), ("7b", 6.8), ("70b", 69.0)]
)
def test_a_preset_has_the_parameters_of_its_name(preset, billions):
    assert num_parameters(ModelConfig(preset=preset)) == pytest.approx(billions * 1e9, rel=0.02)


def test_the_70b_preset_has_the_sizes_of_the_project():
    sizes = ModelConfig(preset="70b")
    assert (sizes.num_layers, sizes.hidden_size, sizes.ffn_hidden_size) == (80, 8192, 28672)
    assert (sizes.num_attention_heads, sizes.num_query_groups, sizes.kv_channels) == (64, 8, 128)
    assert (sizes.seq_length, sizes.max_position_embeddings) == (4096, 4096)


def test_the_padded_vocabulary_of_34000_is_34816_whatever_the_layout():
    sizes = ModelConfig(preset="70b")
    assert (sizes.vocab_size, sizes.padded_vocab_size) == (34000, 34816)
    # The multiple of Megatron-LM's 128 x TP for its largest TP, so every smaller one divides it.
    assert all(34816 % (128 * tp) == 0 for tp in (1, 2, 4, 8))


@pytest.mark.parametrize(
    ("vocab_size", "padded"), [(1, 1024), (1024, 1024), (1025, 2048), (32000, 32768)]
)
def test_the_vocabulary_is_padded_to_the_next_multiple(vocab_size, padded):
    assert ModelConfig(preset="tiny", vocab_size=vocab_size).padded_vocab_size == padded


def test_a_field_that_is_set_wins_over_the_preset():
    sizes = ModelConfig(preset="tiny", num_layers=6)
    assert (sizes.num_layers, sizes.hidden_size) == (6, 128)


def test_every_head_has_its_own_key_unless_groups_are_set():
    assert ModelConfig(**SIZES).num_query_groups == 8


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"preset": "13b"}, "model.preset=13b does not exist; choose one of 1b, 3b, 70b, 7b, tiny"),
        ({"num_layers": None}, "model.num_layers is not set; set it, or choose a model.preset"),
        ({"hidden_size": 0}, "model.hidden_size=0 must be at least 1"),
        ({"num_query_groups": 0}, "model.num_query_groups=0 must be at least 1"),
        ({"make_vocab_size_divisible_by": 0}, "make_vocab_size_divisible_by=0 must be at least 1"),
        ({"vocab_size": -5}, "model.vocab_size=-5 must be at least 1"),
        ({"hidden_size": 60}, "hidden_size=60 is not divisible by .*num_attention_heads=8"),
        ({"hidden_size": 56}, "a head of width 7 .* is odd; .*make it even"),
        ({"num_query_groups": 3}, "num_attention_heads=8 is not divisible by .*groups=3"),
        ({"transformer_impl": "fast"}, "transformer_impl=fast is unknown; choose one of auto"),
    ],
)
def test_sizes_that_make_no_model_are_refused_with_the_remedy(changed, message):
    with pytest.raises(UserError, match=message):
        ModelConfig(**(SIZES | changed))
