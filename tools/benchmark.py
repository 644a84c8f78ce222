"""Times what is here beside what people would use instead.

    python tools/benchmark.py train model.preset=tiny model.vocab_size=4096
    python tools/benchmark.py layers --bf16 --profile
    python tools/benchmark.py suite gpu --budget-s 560
    python tools/benchmark.py suite gpu --tiny --device cpu
    python tools/benchmark.py train --json --bf16 model.preset=1b > docs/benchmarks/train_1b.json
    python tools/benchmark.py encode --input pubmed.jsonl --tokenizer-model tokenizer.model \\
        --megatron-lm ../Megatron-LM --python ../venv/bin/python --workers 2 --json
    python tools/benchmark.py corpus --input pubmed26n0001.xml.gz
    python tools/benchmark.py convert --scratch /big/disk
    python tools/benchmark.py sft --input medquad.jsonl --tokenizer-model tokenizer/
    torchrun --nproc_per_node 2 tools/benchmark.py checkpoint model.preset=1b model.vocab_size=4096
    python tools/benchmark.py startup
    python tools/benchmark.py data --shards 1000 --documents 30000000 --megatokens 800
    python tools/benchmark.py dpo model.preset=tiny model.vocab_size=4096 model.seq_length=256
    python tools/benchmark.py extraction --data benchmarks --json
    python tools/benchmark.py evaluate --checkpoint runs/my_run --hf export --data benchmarks

layers: layers at the 70B model's widths, forward and backward, in every way that this machine can,
beside transformers'; shares of the data sheet's peak and of a product that is measured first.
train: a training step beside the loop that people would write with transformers, in turns, in one
process or --processes; the figure is the ratio of median step times.
encode: text to a finished .bin and .idx beside Megatron-LM's two scripts, datatrove's Megatron
tokenizer and bare sentencepiece, whole processes in turns, on real text repeated to each size.
corpus: one source file through the reader and every step of the curation, in megabytes per second
of one core; beside bare lxml, and datatrove's own near-duplicate signatures where spaCy is there.
convert: a slice of the 70B model (its widths, 4 layers) from a sharded checkpoint to Hugging Face
and back, beside copying the files; takes 24 GB of disk.
suite: all of these for a GPU, for the CPU, or around the step, into docs/benchmarks; rows that are
there are kept, and --tiny rehearses every command anywhere.
sft: training on packed conversations beside padded ones, in turns in one process; tokens of
conversations a second, and their ratios.
checkpoint: how long the step loop stands still for a checkpoint in the background, beside a save
that holds it up, in turns, and which share of what the disk writes a save and a load are. One
process, --processes, or under torchrun.
startup: from launch to the end of the first step, beside a plain script on megatron-core that
imports everything at its top, whole processes in turns; what was deferred, and what that saves.
data: how long a rank of the 70B run waits for its batches at ten times its rate; and what indexing
and opening many shards takes beside megatron-core's own builder, whole processes in turns.
dpo: a step of DPO beside TRL's DPOTrainer on the same pairs, in turns in one process on the CPU;
the figure is the ratio of median step times.
extraction: what gold mentions and relations score after they were written and read as lines, for
every split that is there, and the scorer of mentions beside seqeval's.
evaluate: log-likelihoods of benchmarks beside lm-eval's own hf on the exported model, at its
fastest batch size, in turns in one process; the figure is the ratio of median times.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from megatron_biollm.imports import quick_imports
from megatron_biollm.log import run_tool


def main() -> int:
    commands = {function.__name__: function for function in COMMANDS}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=commands)
    what = parser.parse_args(sys.argv[1:2]).what
    parser = argparse.ArgumentParser(prog=f"{parser.prog} {what}")
    parser.add_argument("--json", action="store_true", help="the full report instead of the table")
    commands[what](parser)
    return 0


def read(parser: argparse.ArgumentParser) -> tuple[dict[str, Any], bool]:
    """The options, and whether as JSON."""
    args = vars(parser.parse_args(sys.argv[2:]))
    return args, args.pop("json")


def read_with_model(
    parser: argparse.ArgumentParser, *sizes: str, with_layout: bool = False
) -> tuple[dict[str, Any], bool]:
    """The options, `model` among them (`sizes`, then what the user gives), and whether as JSON.

    with_layout: `parallel` too, from overrides that begin with it.
    """
    which = "model.field=value" + (" or parallel.field=value" if with_layout else "")
    parser.add_argument("overrides", nargs="*", metavar=which, help="the network")
    args = vars(parser.parse_intermixed_args(sys.argv[2:]))
    if "num_layers" in args:
        sizes += (f"num_layers={args.pop('num_layers')}",)
    given = [text.removeprefix("model.") for text in args.pop("overrides")]
    from megatron_biollm.config import load_config
    from megatron_biollm.model.config import ModelConfig

    if with_layout:
        from megatron_biollm.parallel.layout import ParallelConfig

        layout = [text for text in given if text.startswith("parallel.")]
        given = [text for text in given if text not in layout]
        fields = [text.removeprefix("parallel.") for text in layout]
        args["parallel"] = load_config(ParallelConfig, overrides=fields)
    args["model"] = load_config(ModelConfig, overrides=[*sizes, *given])
    return args, args.pop("json")


def measure(args: dict[str, Any], as_json: bool, names: str, show: str = "") -> None:
    """Runs a benchmark and prints its report.

    names: `module:Options:function` in `recipes.benchmarks`. show: module of its table, if another.
    """
    module, options, function = names.split(":")
    with quick_imports():  # as the tools that are measured do it
        recipe = importlib.import_module(f"megatron_biollm.recipes.benchmarks.{module}")
    report = getattr(recipe, function)(getattr(recipe, options)(**args))
    if report.get("rank", 0) == 0:
        shown = importlib.import_module(f"megatron_biollm.recipes.benchmarks.{show or module}")
        tell(report, as_json, shown.table)


def tell(report: dict[str, Any], as_json: bool, table: Callable[[dict[str, Any]], str]) -> None:
    print(json.dumps(report, indent=1) if as_json else table(report))


def add_steps(parser: argparse.ArgumentParser, repeats: int = 10, what: str = "steps") -> None:
    add = parser.add_argument
    add("--repeats", type=int, default=repeats, help=f"timed {what} of each side [{repeats}]")
    add("--threads", type=int, default=1, help="torch's threads, for all sides [1]")


def add_batches(
    parser: argparse.ArgumentParser, micro_batch_size: int, num_microbatches: int
) -> None:
    add, size, count = parser.add_argument, micro_batch_size, num_microbatches
    add("--micro-batch-size", type=int, default=size, help=f"rows per forward pass [{size}]")
    add("--num-microbatches", type=int, default=count, help=f"forward passes per step [{count}]")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--bf16", action="store_true", help="bf16 instead of fp32")
    add_steps(parser)


def layers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--layers", type=int, help="how many [as many as fit; on the CPU one]")
    parser.add_argument("--variants", nargs="+", default=[], help="of ours, by name [all]")
    add_batches(parser, micro_batch_size=1, num_microbatches=2)
    add_sides(parser)
    args, as_json = read_with_model(parser, "preset=70b")
    args.pop("peer_states")
    measure(args, as_json, "layers:LayersBenchmark:benchmark_layers", "speed_tables")


def train(parser: argparse.ArgumentParser) -> None:
    add_batches(parser, micro_batch_size=8, num_microbatches=1)
    add_sides(parser)
    add = parser.add_argument
    add("--peers", nargs="+", default=["transformers"],
        help="transformers, torchtitan [transformers]")  # fmt: skip
    add("--processes", type=int, default=1, help="of each side, which share the micro-batches [1]")
    args, as_json = read_with_model(parser, with_layout=True)
    measure(args, as_json, "train:TrainBenchmark:benchmark_training", "speed_tables")


def add_sides(parser: argparse.ArgumentParser) -> None:
    """What the benchmarks of layers and of training share."""
    add = parser.add_argument
    add("--compile-peer", choices=("auto", "on", "off"), default="auto",
        help="torch.compile the peer; auto: on a GPU")  # fmt: skip
    add("--peer-states", nargs="+", default=["bf16", "autocast"],
        help="peer's weights and moments under --bf16: bf16, autocast (fp32) [both]")  # fmt: skip
    add("--visits", type=int, help="builds of each side, 0: all at once [GPU 2, CPU 0]")
    add("--profile", action="store_true", help="record one step of each side: ten largest items")


def suite(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("suite", choices=("gpu", "around", "cpu"))
    add("--output", type=Path, help="folder [docs/benchmarks; a temporary one with --tiny]")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--tiny", action="store_true", help="rehearse: small sizes, no figure counts")
    add("--again", action="store_true", help="measure anew what is there already")
    add("--only", nargs="+", default=(), metavar="ROW", help="names of rows [all]")
    add("--budget-s", type=float, help="seconds; what may not fit is left for the next run")
    args, as_json = read(parser)
    from megatron_biollm.recipes.benchmarks.suite import SuiteOptions, run_suite

    page, rows = run_suite(SuiteOptions(**args | {"only": tuple(args["only"])}), Path(__file__))
    filled = {row.entry.name: row.reason or "filled" for row in rows}
    tell({"page": str(page), "rows": filled}, as_json, lambda report: page.read_text())


def sft(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--input", required=True, help="conversations (tools/prepare_conversations.py)")
    add("--tokenizer-model", required=True, help="tokenizer folder or SentencePiece .model file")
    add_batches(parser, micro_batch_size=1, num_microbatches=8)
    args, as_json = read_with_model(parser)
    measure(args, as_json, "sft:SftBenchmark:benchmark_sft")


def encode(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--input", required=True, help="JSON lines with real text under 'text'")
    add("--tokenizer-model", required=True, help="SentencePiece .model file")
    add("--megatron-lm", help="folder of a Megatron-LM checkout; its scripts are left out without")
    add("--python", help="interpreter that can run them [this one]")
    add("--sizes-mb", type=int, nargs="+", default=[100, 1000], help="sizes of text [100 1000]")
    add("--workers", type=int, default=1, help="processes of each side [1]")
    add("--repeats", type=int, default=3, help="runs of each side and size [3]")
    add("--peers", nargs="+", default=[], help="only these sides, as the table names them")
    add("--scratch", help="folder for text and outputs, which are removed [the system's]")
    args, as_json = read(parser)
    measure(args, as_json, "encode:EncodeBenchmark:benchmark_encoding")


def corpus(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--input", required=True, help="a source file, for example PubMed XML")
    add("--megabytes", type=int, default=100, help="of bytes and of text, repeated up to it [100]")
    add("--repeats", type=int, default=3, help="of each measurement [3]")
    args, as_json = read(parser)
    measure(args, as_json, "corpus:CorpusBenchmark:benchmark_corpus")


def convert(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--layers", type=int, default=4, dest="num_layers", help="of the slice [4]")
    add("--tensor-model-parallel-size", type=int, default=8, help="that wrote it [8]")
    add("--pipeline-model-parallel-size", type=int, default=2, help="that wrote it [2]")
    add("--dtype", default="bfloat16", help="of its weights [bfloat16]")
    add("--workers", type=int, nargs="+", default=[1, 2], help="processes of a conversion [1 2]")
    add("--repeats", type=int, default=3, help="rounds of all sides [3]")
    add("--max-memory-gb", type=float, default=3.0, help="cap of a conversion [3]")
    add("--warm", action="store_true", help="leave the input in memory before each run")
    add("--scratch", help="folder for slice and outputs, which are removed [the system's]")
    args, as_json = read_with_model(parser, "preset=70b", "vocab_size=34000")
    measure(args, as_json, "convert:ConvertBenchmark:benchmark_conversion")


def checkpoint(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--micro-batch-size", type=int, default=1, help="sequences of a step and process [1]")
    add_steps(parser, repeats=3, what="saves")
    add("--bf16", action="store_true", help="bf16 weights with fp32 master weights")
    add("--scratch", help="folder to save into, which is emptied again [the system's]")
    add("--processes", type=int, default=1, help="to start; not under torchrun [1]")
    args, as_json = read_with_model(parser)
    names = "checkpoint:CheckpointBenchmark:benchmark_checkpoints"
    measure(args, as_json, names, "checkpoint_tables")


def startup(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--processes", type=int, nargs="+", default=[1, 4], help="numbers of them [1 4]")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--fusions", action="store_true", help="also the script with fusions that core compiles")
    add("--repeats", type=int, default=5, help="launches of each side [5]")
    add("--scratch", help="folder for data and runs, which are removed [the system's]")
    args, as_json = read_with_model(parser, "preset=tiny", "vocab_size=2000")
    names = "startup:StartupBenchmark:benchmark_startup"
    measure(args, as_json, names, "startup_tables")


def data(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--shards", type=int, default=100, help="corpora of the blend that is opened [100]")
    add("--documents", type=int, default=1_000_000, help="of all of them together [1000000]")
    add("--megatokens", type=int, default=100, help="ids that are read, in millions [100]")
    add("--steps", type=int, default=20, help="timed steps of each way of loading [20]")
    add("--workers", type=int, nargs="+", default=[0, 1, 2], help="that read ahead [0 1 2]")
    add("--repeats", type=int, default=3, help="processes of each side that open [3]")
    add("--scratch", help="folder for the corpora, which are removed [the system's]")
    args, as_json = read(parser)
    measure(args, as_json, "data:DataBenchmark:benchmark_data", "data_report")


def dpo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=int, default=4, help="of a step [4]")
    add_steps(parser)
    args, as_json = read_with_model(parser)
    measure(args, as_json, "dpo:DpoBenchmark:benchmark_dpo")


def extraction(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder of the benchmarks")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of the timed scorers [3]")
    args, as_json = read(parser)
    from megatron_biollm.recipes.benchmarks.extraction import benchmark_extraction, table

    tell(benchmark_extraction(**args), as_json, table)


def evaluate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--checkpoint", required=True, help="run, or one step")
    add("--hf", required=True, help="the same model, exported")
    add("--data", required=True, help="folder with the benchmarks' folders")
    add("--suite", nargs="+", default=["medqa"], help="benchmarks with choices [medqa]")
    add("--limit", type=int, default=100, help="items of each [100]")
    add("--num-fewshot", type=int, default=0, help="examples in the prompts [0]")
    add("--batch-sizes", type=int, nargs="+", default=[1, 8, 32], help="of hf [1 8 32]")
    add("--batch-tokens", type=int, default=4096, help="of a batch of ours [4096]")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add_steps(parser, repeats=5, what="rounds")
    args, as_json = read(parser)
    measure(args, as_json, "evaluate:EvaluateBenchmark:benchmark_evaluation")


COMMANDS = (
    layers, train, suite, sft, encode, corpus, convert, checkpoint, startup,
    data, dpo, extraction, evaluate,
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(run_tool(main))
