"""Converts a model between Hugging Face's LLaMA folder and this program's checkpoints.

Adapters (finetune.lora) are merged into the weights, or with --adapter written alone, for PEFT.

Works without a GPU, a few rows at a time, under a stated cap on memory that holds for a model of
any size. Both sides then compute the same tokens, and the output appears only if their logits
agree.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.log import run_tool, setup_logging

EXAMPLES = """examples:
  python tools/convert_checkpoint.py to-hf --input runs/tiny --output exported
  python tools/convert_checkpoint.py to-hf --input runs/lora --adapter --output adapter
  python tools/convert_checkpoint.py from-hf --input Llama-2-7b-hf --output runs/init/checkpoints
  python tools/convert_checkpoint.py from-hf --input Llama-2-7b-hf --tokenizer extended \\
      --output runs/init/checkpoints --tensor-model-parallel-size 8 --workers 4
"""


def main() -> int:
    """Parses, converts, and prints the parity report."""
    options = parse()
    setup_logging()
    # Before the imports below, which take seconds.
    source = existing(options.input)
    tokenizer = existing(options.tokenizer) if options.tokenizer else None
    from megatron_biollm.parallel.layout import ParallelConfig
    from megatron_biollm.recipes.convert import ConversionConfig, export_to_hf, import_from_hf

    config = ConversionConfig(
        input=source,
        output=options.output,
        max_memory_gb=options.max_memory_gb,
        tokenizer=tokenizer,
        dtype=options.dtype,
        workers=options.workers,
        parallel=ParallelConfig(
            tensor_model_parallel_size=options.tensor_model_parallel_size,
            pipeline_model_parallel_size=options.pipeline_model_parallel_size,
        ),
    )
    if options.adapter:
        return write_adapter(config, options)
    convert = {"from-hf": import_from_hf, "to-hf": export_to_hf}[options.direction]
    report = convert(config)
    print(json.dumps(report, indent=2) if options.json else summary(report, options.output))
    return 0


def write_adapter(config: Any, options: argparse.Namespace) -> int:
    """Writes a run's adapters alone."""
    if options.direction != "to-hf":
        raise UserError("--adapter goes with to-hf: adapters are written, and not read; leave it")
    from megatron_biollm.recipes.convert_adapter import export_adapter

    report = export_adapter(config)
    line = f"{options.output}: adapters of rank {report['r']} for PEFT"
    print(json.dumps(report, indent=2) if options.json else line)
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("direction", choices=("from-hf", "to-hf"))
    add("--input", type=Path, required=True, help="model folder (from-hf); run or step (to-hf)")
    add(
        "--output",
        type=Path,
        required=True,
        help="folder to make (to-hf), or to get a step_00000000 (from-hf)",
    )
    add("--max-memory-gb", type=float, default=3.0, help="cap on all processes (default 3)")
    add("--workers", type=int, default=1, help="processes; same output for any number (default 1)")
    add("--adapter", action="store_true", help="to-hf: a run's LoRA adapters alone, for PEFT")
    add("--tokenizer", type=Path, help="tokenizer folder, if not the input's own")
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="default: as stored")
    add("--tensor-model-parallel-size", type=int, default=1, help="checked on import (default 1)")
    add("--pipeline-model-parallel-size", type=int, default=1, help="checked on import (default 1)")
    add("--json", action="store_true", help="print the whole parity report")
    return parser.parse_args()


def existing(path: Path) -> Path:
    """The path, if there is something."""
    if not path.exists():
        raise UserError(f"{path} does not exist; give the path of a folder")
    return path


def summary(report: dict, output: Path) -> str:
    """One line for people."""
    return (
        f"{output}: parity holds, largest difference of logits "
        f"{report['max_abs_diff_logits']:.2g} (largest logit {report['max_abs_logit']:.3g}), "
        f"top-1 agreement {report['top_1_agreement']:.1%}; peak memory "
        f"{report['peak_memory_gb']:.2f} of {report['max_memory_gb']:g} GB"
    )


if __name__ == "__main__":
    sys.exit(run_tool(main))
