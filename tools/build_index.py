"""Builds the sample index of a run, before any GPU is booked.

Give the run's config, with its overrides, or the options of its data section. Every folder of the
index appears complete or not at all; several jobs may build at once; what is there is kept.

examples:
  python tools/build_index.py --config run.yaml training.train_iters=10000
  python tools/build_index.py --config run.yaml --config corpus/blend.yaml
  python tools/build_index.py --data-path 0.7 a_text_document 0.3 b_text_document \\
      --seq-length 4096 --seed 1234 --split 969,30,1 --train-samples 1000000
"""

import argparse
import json
import sys
from pathlib import Path

from megatron_biollm.config import UserError
from megatron_biollm.data.config import DataConfig
from megatron_biollm.data.planned import ensure_index
from megatron_biollm.data.sidecar import check_tokenizer, check_vocabulary
from megatron_biollm.log import Progress, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", action="append", help="YAML of the run; given again, it goes over the first"
    )
    parser.add_argument("overrides", nargs="*", default=[], help="section.field=value")
    data = parser.add_argument_group("instead of --config")
    for name in ("data-path", "train-data-path", "valid-data-path", "test-data-path"):
        data.add_argument(f"--{name}", nargs="+", default=[], help=f"as data.{name}")
    data.add_argument("--split", default="969,30,1", help="shares of train, valid and test")
    data.add_argument("--seq-length", type=int, help="tokens in a sample")
    data.add_argument("--seed", type=int, default=1234, help="as training.seed")
    data.add_argument(
        "--data-cache-path", "--cache-dir", help="default: `index` beside the corpora"
    )
    data.add_argument(
        "--train-samples", type=int, default=1, help="of the whole run; default: one epoch"
    )
    parser.add_argument("--json", action="store_true", help="print the folders as JSON")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    run = from_config(args) if args.config else from_flags(args)
    with Progress(None, "corpora checked or indexed", unit="corpora") as progress:
        folders = ensure_index(*run, progress=lambda prefix: progress.update())
    if args.json:
        print(json.dumps([str(folder) for folder in folders], indent=2))
    else:
        print(f"the sample index is in {len(folders)} folders of {', '.join(places(folders))}")


def from_config(args: argparse.Namespace) -> tuple[DataConfig, int, int, int]:
    """The arguments of `ensure_index`; also compares tokenizer, vocabulary and corpora."""
    from megatron_biollm.recipes.run_config import load_run_config
    from megatron_biollm.tokenizer.manifest import TokenizerManifest
    from megatron_biollm.tokenizer.tokenizer import build_tokenizer

    run = load_run_config(args.config, args.overrides)
    tokenizer = build_tokenizer(run.tokenizer)
    check_tokenizer(run.data.prefixes(), TokenizerManifest.from_tokenizer(tokenizer))
    check_vocabulary(run.data.prefixes(), tokenizer.vocab_size)
    samples = run.training.train_iters * run.training.global_batch_size
    return run.data, run.model.seq_length, run.training.seed, samples


def from_flags(args: argparse.Namespace) -> tuple[DataConfig, int, int, int]:
    if args.overrides:
        raise UserError(f"{args.overrides[0]!r} overrides a config; give --config as well")
    if args.seq_length is None:
        raise UserError("--seq-length is missing; give the run's model.seq_length, or --config")
    data = DataConfig(
        data_path=args.data_path,
        train_data_path=args.train_data_path,
        valid_data_path=args.valid_data_path,
        test_data_path=args.test_data_path,
        split=args.split,
        data_cache_path=args.data_cache_path,
    )
    return data, args.seq_length, args.seed, args.train_samples


def places(folders: list[Path]) -> list[str]:
    return sorted({str(folder.parent) for folder in folders})


if __name__ == "__main__":
    sys.exit(run_tool(main))
