"""Times training here beside the loop that people would write with transformers.

    python tools/benchmark.py train model.preset=tiny model.vocab_size=4096
    python tools/benchmark.py train --json model.preset=1b > docs/benchmarks/train_1b.json

Both sides run in turns in one process; the figure is the ratio of median step times.
"""

import argparse
import json
import sys

from megatron_biollm.config import load_config
from megatron_biollm.log import run_tool
from megatron_biollm.model.config import ModelConfig


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("what", choices=("train",))
    add("--micro-batch-size", type=int, default=8, help="sequences per forward pass [8]")
    add("--num-microbatches", type=int, default=1, help="forward passes per step [1]")
    add("--repeats", type=int, default=10, help="timed steps of each side [10]")
    add("--threads", type=int, default=1, help="torch's threads, for both sides [1]")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--bf16", action="store_true", help="bf16 instead of fp32")
    add("--json", action="store_true", help="the full report instead of the table")
    add("overrides", nargs="*", metavar="model.field=value", help="the network")
    args = vars(parser.parse_intermixed_args())
    sizes = [text.removeprefix("model.") for text in args.pop("overrides")]
    as_json, _ = args.pop("json"), args.pop("what")
    model = load_config(ModelConfig, overrides=sizes)
    from megatron_biollm.recipes.benchmark import TrainBenchmark, benchmark_training, table

    report = benchmark_training(TrainBenchmark(model=model, **args))
    print(json.dumps(report, indent=1) if as_json else table(report))
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
