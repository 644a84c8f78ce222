"""A whole run is rehearsed; a broken one names rank, rule and remedy."""

from pathlib import Path

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.planner.hardware import load_gpu
from megatron_biollm.recipes.rehearse import RehearsalOptions, rehearse
from megatron_biollm.recipes.run_config import load_run_config
from megatron_biollm.rehearsal.page import table

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "examples/pretrain_70b/run.yaml"
TINY = (
    "training.micro_batch_size=1",
    "model.preset=tiny",
    "model.vocab_size=1000",
    "model.num_layers=4",
    "parallel.tensor_model_parallel_size=2",
    "parallel.pipeline_model_parallel_size=2",
    "parallel.virtual_pipeline_model_parallel_size=2",
    "training.global_batch_size=32",
)


def tiny(*overrides):
    return load_run_config(SHIPPED, [*TINY, *overrides])


def test_a_run_is_rehearsed_on_every_rank():
    report = rehearse(tiny(), RehearsalOptions(world_size=8, processes=1, gpu="h100-80gb"))
    assert report["broken"] == []
    assert [row["rank"] for row in report["ranks"]] == [0, 4]
    parameters = sum(row["parameters"] for row in report["ranks"]) * 2
    # Norms are on both tensor-parallel ranks.
    assert report["parameters"] < parameters < 1.01 * report["parameters"]
    weights, state = 2 * report["parameters"], 12 * report["parameters"]
    for saved in report["checkpoint"].values():
        assert saved["bytes"] == pytest.approx(weights + state, rel=0.01)
        assert len(saved["by_rank"]) == 8
    page = table(report)
    assert "TP2 x PP2 x CP1 x VPP2 x DP2 + SP" in page
    assert page.endswith("Every rule holds on every rank.")


def test_a_run_of_documents_that_do_not_see_each_other_is_rehearsed():
    config = tiny("data.reset_attention_mask=true", "data.reset_position_ids=true")
    report = rehearse(config, RehearsalOptions(world_size=8, processes=1, checkpoint=False))
    assert report["broken"] == []


def test_peak_memory_agrees_with_the_planner():
    report = rehearse(
        tiny("model.seq_length=512", "model.hidden_size=512", "model.ffn_hidden_size=1536"),
        RehearsalOptions(world_size=8, processes=1, checkpoint=False),
    )
    for row in report["ranks"]:
        assert row["peak"]["total"] == pytest.approx(row["planner_bytes"], rel=0.1)


def test_a_run_that_does_not_fit_names_rank_rule_and_remedy(tmp_path):
    gpus = tmp_path / "gpus.yaml"
    small = load_gpu("h100-80gb")
    gpus.write_text(f"toy:\n  like: {small.name}\n  memory_gb: 1\n")
    options = RehearsalOptions(
        world_size=8, processes=1, gpu="toy", gpu_table=str(gpus), checkpoint=False
    )
    report = rehearse(tiny(), options)
    assert [row["rank"] for row in report["broken"]] == [0, 4]
    page = table(report)
    assert "BROKEN: rank 0 (tp0 cp0 dp0 pp0): it needs " in page
    assert "Rule: a rank fits" in page and "Remedy: raise TP or PP" in page


def test_a_layout_that_the_schedule_refuses_is_refused_before_anything_is_built():
    with pytest.raises(UserError, match="interleaved schedule needs micro-batches per step"):
        rehearse(tiny("training.global_batch_size=6"), RehearsalOptions(world_size=8))


def test_a_rank_that_cannot_be_built_is_named():
    config = tiny()
    # Rules that the configuration checks, broken behind its back, as core would meet them.
    config.parallel.recompute_granularity = "some"
    with pytest.raises(UserError, match=r"^rank 0 \(tp0 cp0 dp0 pp0\) cannot be built.*Remedy"):
        rehearse(config, RehearsalOptions(world_size=8, processes=1))
    config.parallel.virtual_pipeline_model_parallel_size = 3
    with pytest.raises(UserError, match=r"^rank 0 \(tp0 cp0 dp0 pp0\): .*choose a PP x VPP"):
        rehearse(config, RehearsalOptions(world_size=8, processes=1))


def test_no_vocabulary_and_no_such_rank_are_refused():
    with pytest.raises(UserError, match="vocabulary size is unknown; give model.vocab_size"):
        rehearse(tiny("model.vocab_size=null"), RehearsalOptions(world_size=8))
    with pytest.raises(UserError, match="rank 8 is not one of the 8 ranks"):
        RehearsalOptions(world_size=8, ranks=[8])
