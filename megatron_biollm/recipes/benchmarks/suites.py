"""What each suite of benchmarks runs: one row for each command, the most important first."""

from dataclasses import dataclass

from megatron_biollm.recipes.benchmarks.bars import Bar
from megatron_biollm.recipes.benchmarks.layers import layer_bars
from megatron_biollm.recipes.benchmarks.train import training_bars

SPEED = "megatron_biollm.recipes.benchmarks.speed_tables:table"
# Sizes of a rehearsal: every option of the real row on a network of a few thousand weights.
SMALL = (
    "model.num_layers=2", "model.hidden_size=64", "model.num_attention_heads=4",
    "model.num_query_groups=2", "model.ffn_hidden_size=128", "model.seq_length=64",
    "model.max_position_embeddings=64", "model.vocab_size=256",
    "model.make_vocab_size_divisible_by=256",
)  # fmt: skip
MODEL_OF_62M = (
    "model.num_layers=4", "model.hidden_size=1024", "model.num_attention_heads=16",
    "model.num_query_groups=8", "model.ffn_hidden_size=2816", "model.seq_length=128",
    "model.vocab_size=8192",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One row of a suite.

    Attributes:
        name: of its JSON file.
        title: what it shows.
        argv: after `tools/benchmark.py`; `--json` and the device are added.
        tiny: in place of `argv` in a rehearsal.
        shows: `module:function` that makes a table of the report.
        bars: figures that it will have, for a row that is still empty.
        judged: its figures must reach their bars; else it is there for information.
        needs: "cuda" or nothing.
        expected_s: how long it takes where it was meant to run; within a budget it is not begun
            with less time left.
        devices: the command takes `--device`.
    """

    name: str
    title: str
    argv: tuple[str, ...]
    tiny: tuple[str, ...]
    shows: str = ""
    needs: str = ""
    expected_s: int = 60
    devices: bool = True
    bars: tuple[Bar, ...] = ()
    judged: bool = True


def _layers(name: str, title: str, seconds: int, *more: str) -> Entry:
    options = ("layers", "--bf16", "--profile", *more)
    return Entry(
        name,
        title,
        (*options, "--repeats", "8"),
        (*options, "--repeats", "2", "--visits", "2", "--layers", "2", *SMALL),
        SPEED,
        "cuda",
        seconds,
        bars=tuple(layer_bars([], "cuda")),
    )


def _train(preset: str, rows: int, seconds: int, *peers: str) -> Entry:
    """Whole models: eight steps of two micro-batches, each side beside the others."""
    options = ("train", "--bf16", "--num-microbatches", "2", "--peers", *peers)
    beside = " and ".join(peers)
    suffix = "" if peers == ("transformers",) else "_" + "_".join(peers)
    profile = ("--profile",) if "transformers" in peers else ()
    sizes = ("--micro-batch-size", str(rows), "--repeats", "8", f"model.preset={preset}")
    small = ("--micro-batch-size", "2", "--repeats", "2", "--visits", "2", *SMALL)
    return Entry(
        f"gpu_train_{preset}{suffix}",
        f"a whole model of {preset.upper()}, beside {beside}",
        (*options, *profile, *sizes),
        (*options, *profile, *small),
        SPEED,
        "cuda",
        seconds,
        bars=tuple(training_bars([], "cuda", list(peers))),
    )


def _tiny_model(
    processes: int, *more: str, name: str = "", title: str = "", judged: bool = True
) -> Entry:
    options = ("train", "--num-microbatches", "4", "--processes", str(processes), *more)
    return Entry(
        name or f"cpu_train_tiny_{processes}",
        title or f"the quickstart's model in {processes} process{'es' * (processes > 1)} of a core",
        (*options, "--repeats", "15", "model.preset=tiny", "model.vocab_size=2048"),
        (*options, "--repeats", "2", *SMALL),
        SPEED,
        bars=tuple(training_bars([], "cpu", ["transformers"])),
        judged=judged,
    )


def _checkpoint(processes: int) -> Entry:
    options = ("checkpoint", "--processes", str(processes))
    return Entry(
        f"around_checkpoint_{processes}",
        f"checkpoints of {processes} process{'es' * (processes > 1)} beside the disk",
        (*options, *MODEL_OF_62M),
        (*options, "--repeats", "1", *SMALL),
        "megatron_biollm.recipes.benchmarks.checkpoint_tables:table",
        expected_s=300,
        devices=False,
    )


# What stands above each page.
INTRODUCTIONS = {
    "gpu": (
        "What a GPU does beside its physical limit and beside what people would pick instead. Made "
        "for one H200 with 139 GiB, about 25 minutes in three parts, the most important rows "
        "first: `python tools/benchmark.py suite gpu --budget-s 560` three times. torchtitan's "
        "rows need it installed or in PYTHONPATH, those of Transformer Engine's layers "
        "transformer-engine; what is absent is a row with its reason."
    ),
    "around": "What surrounds the step: data, start-up, checkpoints.",
    "cpu": "The quickstart's model, and a larger one, on the CPU, each process with one thread.",
}

SUITES: dict[str, tuple[Entry, ...]] = {
    "gpu": (
        _layers("gpu_layers_70b", "layers at the 70B model's widths, as many as fit", 240),
        _train("1b", 4, 200, "transformers"),
        _train("7b", 1, 280, "transformers"),
        _train("3b", 2, 240, "transformers"),
        _train("1b", 4, 150, "torchtitan"),
        _train("7b", 1, 200, "torchtitan"),
        _train("3b", 2, 180, "torchtitan"),
    ),
    "around": (
        Entry(
            "around_data",
            "loading a rank's batches, and opening 1,000 shards with 30 million documents",
            ("data", "--shards", "1000", "--documents", "30000000", "--megatokens", "400",
             "--workers", "0", "2"),
            ("data", "--shards", "2", "--documents", "4000", "--megatokens", "4", "--steps", "2",
             "--workers", "0", "--repeats", "1"),
            "megatron_biollm.recipes.benchmarks.data_report:table",
            expected_s=1200,
            devices=False,
        ),
        Entry(
            "around_startup",
            "from launch to the first step",
            ("startup", "--repeats", "3"),
            ("startup", "--processes", "1", "--repeats", "1"),
            "megatron_biollm.recipes.benchmarks.startup_tables:table",
            expected_s=600,
        ),
        _checkpoint(1),
        _checkpoint(2),
    ),
    "cpu": (
        _tiny_model(1, "--profile"),
        _tiny_model(2),
        _tiny_model(4),
        _tiny_model(
            2, "parallel.tensor_model_parallel_size=2", name="cpu_train_tiny_tp2", judged=False,
            title="for information: in 2 processes, ours with tensor parallelism of 2",
        ),
        _tiny_model(
            1, "--compile-peer", "on", name="cpu_train_tiny_compiled",
            title="the same in 1 process, beside a compiled peer",
        ),
        Entry(
            "cpu_train_62m",
            "62 million parameters in 1 process of a core",
            ("train", "--micro-batch-size", "4", "--num-microbatches", "2", "--processes", "1",
             "--repeats", "5",
             *MODEL_OF_62M),
            ("train", "--num-microbatches", "2", "--repeats", "1", *SMALL),
            SPEED,
            expected_s=180,
            bars=tuple(training_bars([], "cpu", ["transformers"])),
        ),
    ),
}  # fmt: skip
