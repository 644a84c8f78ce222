from megatron_biollm.model.config import ModelConfig
from megatron_biollm.recipes.benchmarks.sft import SftBenchmark, benchmark_sft, table
from tests.integration.sft_run import write_inputs


def small_benchmark(folder):
    sizes = ModelConfig(
        num_layers=1, hidden_size=16, num_attention_heads=2, ffn_hidden_size=16, seq_length=96
    )
    options = SftBenchmark(
        input=str(folder / "a.jsonl"),
        tokenizer_model=str(folder / "tokenizer"),
        model=sizes,
        num_microbatches=2,
        repeats=2,
        device="cpu",
    )
    return benchmark_sft(options)


def test_all_sides_train_on_rows_of_the_same_length_filled_in_their_own_way(world, tmp_path):
    write_inputs(tmp_path)
    report = world.run(1, small_benchmark, tmp_path, joined=False)[0]
    packed, longest, whole = report["rows"]
    assert packed["places_taken"] > 0.8 > whole["places_taken"] == longest["places_taken"]
    assert set(report["ratios"]) == {longest["name"], whole["name"]}
    assert f"| {packed['name']} |" in table(report)
