import pytest

from megatron_biollm.config import UserError
from megatron_biollm.recipes.convert import ConversionConfig, export_to_hf
from tests.evaluation.quiz import write_medqa
from tests.generation.saved_run import save_run
from tests.generation.small_model import layout

pytest.importorskip("lm_eval", reason="the benchmark is against lm-eval, of the eval extra")
from megatron_biollm.recipes.benchmarks.evaluate import (
    EvaluateBenchmark,
    benchmark_evaluation,
    table,
)


def test_both_sides_answer_the_same_and_are_timed(world, tokenizer_folder, tmp_path):
    world.run(1, save_run, tmp_path / "run", tokenizer_folder, layout(), [5])
    export_to_hf(ConversionConfig(tmp_path / "run" / "checkpoints", tmp_path / "export"))
    options = EvaluateBenchmark(
        checkpoint=str(tmp_path / "run"),
        hf=str(tmp_path / "export"),
        data=str(write_medqa(tmp_path / "data")),
        limit=3,
        batch_sizes=[2],
        repeats=1,
        device="cpu",
    )
    report = benchmark_evaluation(options)
    letters, texts = report["rows"]
    assert letters["requests"] == texts["requests"] == 12
    assert max(row["largest_difference"] for row in report["rows"]) < 1e-4
    assert "| medqa | letter | 12 |" in table(report)


def test_numbers_below_one_are_refused():
    with pytest.raises(UserError, match="limit=0 must be at least 1"):
        EvaluateBenchmark(checkpoint="a", hf="b", data="c", limit=0)
    with pytest.raises(UserError, match="must be at least 1 each"):
        EvaluateBenchmark(checkpoint="a", hf="b", data="c", batch_sizes=[0])
