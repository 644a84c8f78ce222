"""FP8 as core is asked for it, and what it is refused for. No GPU is needed to ask."""

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.device.runtime import select_device
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.parallel import precision
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.parallel.parallelize import parallelize, transformer_config
from megatron_biollm.parallel.precision import DIVISORS, Fp8, check_fp8_engine, check_fp8_sizes

MODEL = ModelConfig(preset="70b")


@pytest.mark.parametrize("recipe", DIVISORS)
def test_core_gets_its_own_names(recipe):
    layout, fp8 = ParallelConfig(), Fp8("hybrid", recipe, 16)
    # Without Transformer Engine core refuses the fused rope of its layers.
    config = transformer_config(MODEL, layout, "cuda", "local", True, fp8)
    found = (config.fp8, config.fp8_recipe, config.fp8_amax_history_len)
    assert found == ("hybrid", recipe, 16)
    assert config.fp8_param is False
    plain = transformer_config(MODEL, layout, "cuda", "local", True)
    assert plain.fp8 is None


@pytest.mark.parametrize("recipe", DIVISORS)
def test_the_70b_fits_every_recipe_in_its_layout(recipe):
    layout = ParallelConfig(
        tensor_model_parallel_size=8, pipeline_model_parallel_size=8, sequence_parallel=True
    )
    check_fp8_sizes(recipe, MODEL, layout, micro_batch_size=1)


def test_too_few_tokens_of_a_rank_are_refused():
    layout = ParallelConfig(tensor_model_parallel_size=8, sequence_parallel=True)
    model = ModelConfig(preset="70b", seq_length=64)
    check_fp8_sizes("tensorwise", model, layout, micro_batch_size=2)
    with pytest.raises(UserError, match="tokens of a micro-batch on one rank = 8 does not"):
        check_fp8_sizes("tensorwise", model, layout, micro_batch_size=1)


def test_layers_that_have_no_fp8_are_refused_with_the_reason():
    with pytest.raises(UserError, match=r"training.fp8 needs .* local \(auto: the run is on"):
        parallelize(
            MODEL, ParallelConfig(), select_device("cpu"), None, bf16=True, seed=0, fp8=Fp8()
        )


@pytest.mark.parametrize(
    ("recipe", "installed", "fits"),
    [
        ("tensorwise", "2.1.0", False),
        ("tensorwise", "2.2.0.dev0+abc", True),
        ("blockwise", "2.2.0", False),
        ("delayed", "1.13", True),
        ("mxfp8", "2.20.1", True),
    ],
)
def test_an_engine_that_is_too_old_is_refused(monkeypatch, recipe, installed, fits):
    monkeypatch.setattr(precision, "version", lambda name: installed)
    if fits:
        check_fp8_engine(recipe, "transformer_engine", "asked for")
        return
    with pytest.raises(UserError, match=f"{recipe} needs transformer-engine .*{installed}"):
        check_fp8_engine(recipe, "transformer_engine", "asked for")
