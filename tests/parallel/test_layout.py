import itertools

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.parallel.layout import ParallelConfig, check_model_fits_layout

TP = "tensor_model_parallel_size"
PP = "pipeline_model_parallel_size"
VPP = "virtual_pipeline_model_parallel_size"
CP = "context_parallel_size"


def model(**changed):
    sizes = {
        "num_layers": 8,
        "hidden_size": 64,
        "num_attention_heads": 8,
        "num_query_groups": 4,
        "ffn_hidden_size": 96,
        "seq_length": 64,
        "vocab_size": 1000,
        "make_vocab_size_divisible_by": 128,
    }
    return ModelConfig(**(sizes | changed))


@pytest.mark.parametrize(
    ("fields", "rule", "remedy"),
    [
        ({TP: 0}, "parallel.tensor_model_parallel_size=0", "at least 1"),
        ({PP: -1}, "parallel.pipeline_model_parallel_size=-1", "at least 1"),
        ({CP: 0}, "parallel.context_parallel_size=0", "at least 1"),
        ({PP: 2, VPP: 0}, "virtual_pipeline_model_parallel_size=0", "at least 1"),
        ({VPP: 2}, "virtual_pipeline_model_parallel_size=2", "pipeline_model_parallel_size >= 2"),
        ({"sequence_parallel": True}, "sequence_parallel=true", "raise TP"),
        ({"recompute_granularity": "some"}, "recompute_granularity=some", "full or selective"),
        ({"recompute_method": "block"}, "recompute_method", "recompute_granularity"),
        ({"recompute_num_layers": 2}, "recompute_num_layers", "recompute_granularity"),
        (
            {"recompute_granularity": "full", "recompute_method": "odd"},
            "recompute_method=odd",
            "uniform or block",
        ),
        (
            {"recompute_granularity": "full", "recompute_num_layers": -1},
            "recompute_num_layers=-1",
            "at least 1",
        ),
        (
            {"recompute_granularity": "selective", "recompute_modules": ["atn"]},
            "recompute_modules=['atn']",
            "core_attn, layernorm, mlp",
        ),
        (
            {
                "overlap_grad_reduce": True,
                "overlap_param_gather": True,
                "use_distributed_optimizer": False,
            },
            "overlap_param_gather=true",
            "use_distributed_optimizer=true",
        ),
        ({"overlap_param_gather": True}, "overlap_param_gather=true", "overlap_grad_reduce=true"),
        ({PP: 2, "overlap_p2p_comm": True}, "overlap_p2p_comm=true", "switch it off"),
    ],
)
def test_options_that_exclude_each_other_are_refused_with_the_remedy(fields, rule, remedy):
    with pytest.raises(UserError) as error:
        ParallelConfig(**fields)
    assert rule in str(error.value)
    assert remedy in str(error.value)


@pytest.mark.parametrize(
    ("sizes", "degrees", "message"),
    [
        ({}, {TP: 3}, "model.num_attention_heads=8 .*tensor_model_parallel_size=3"),
        ({}, {TP: 8}, "model.num_query_groups=4 .*tensor_model_parallel_size=8; change one"),
        ({"ffn_hidden_size": 98}, {TP: 4}, "model.ffn_hidden_size=98 .*=4; change one"),
        (
            {"make_vocab_size_divisible_by": 1, "vocab_size": 1001},
            {TP: 2},
            "padded vocabulary=1001 .*=2; change one",
        ),
        ({}, {PP: 3}, "model.num_layers=8 .* 3 pipeline stages .* choose a PP x VPP"),
        ({}, {PP: 2, VPP: 3}, "model.num_layers=8 .* 6 pipeline stages .*VPP3"),
        ({"seq_length": 66}, {CP: 2}, "model.seq_length=66 .*2 x .*context_parallel_size=4"),
        (
            {"seq_length": 60},
            {TP: 4, CP: 2, "sequence_parallel": True},
            "seq_length / parallel.context_parallel_size=30 .*=4",
        ),
        (
            {},
            {PP: 4, "recompute_granularity": "full", "recompute_num_layers": 3},
            "recompute_num_layers=3 exceeds the 2 layers of a stage; lower it",
        ),
    ],
)
def test_sizes_that_do_not_fit_the_degrees_are_refused_with_the_remedy(sizes, degrees, message):
    with pytest.raises(UserError, match=message):
        check_model_fits_layout(model(**sizes), ParallelConfig(**degrees))


def test_a_world_that_the_degrees_do_not_divide_is_refused_with_the_remedy():
    parallel = ParallelConfig(**{TP: 2, PP: 2, CP: 2})
    assert [parallel.data_parallel_size(size) for size in (8, 16, 256)] == [1, 2, 32]
    message = "world size 12 is not a multiple of .*TP2 x PP2 x CP2 = 8; start a multiple of 8"
    with pytest.raises(UserError, match=message):
        parallel.data_parallel_size(12)


def test_the_70b_model_fits_its_layouts():
    sizes = ModelConfig(preset="70b")
    for tp, pp, cp in itertools.product((1, 2, 4, 8), (1, 2, 4, 8, 16), (1, 2, 4)):
        degrees = {TP: tp, PP: pp, CP: cp, "sequence_parallel": tp > 1}
        check_model_fits_layout(sizes, ParallelConfig(**degrees))


def test_one_virtual_stage_is_no_interleaving():
    parallel = ParallelConfig(**{PP: 2, VPP: 1})
    assert parallel.virtual_pipeline_model_parallel_size is None
    assert parallel.num_stages == 2


def test_full_recompute_defaults_to_every_layer():
    parallel = ParallelConfig(recompute_granularity="full")
    assert (parallel.recompute_method, parallel.recompute_num_layers) == ("uniform", 1)
