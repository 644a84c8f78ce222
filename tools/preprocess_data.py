"""Turns JSON lines into Megatron's indexed corpora: PREFIX_KEY_document.bin and .idx.

The flags are those of Megatron-LM's tools/preprocess_data.py and so are the bytes it writes, for
any number of workers. With --partitions N document i goes to part i modulo N and the parts follow
one another, as there; --keep-sequential-samples keeps the order of the input. A sidecar,
PREFIX_KEY_document.manifest.json, records the tokenizer and the digests. Nothing is left behind by
an error or Ctrl-C.

example:
  python tools/preprocess_data.py --input corpus.jsonl --output-prefix corpus \\
      --tokenizer-type HuggingFaceTokenizer --tokenizer-model tokenizer/ \\
      --append-eod --workers 4
"""

import argparse
import dataclasses
import functools
import json
import signal
import sys
import time
from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.data.encode import EncodedBatch, EncodeOptions
from megatron_biollm.log import run_tool
from megatron_biollm.tokenizer.manifest import TokenizerManifest
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = parser.add_argument_group("input data")
    data.add_argument("--input", required=True, help="JSON lines, also .gz; or a pattern of files")
    data.add_argument("--json-keys", nargs="+", default=["text"], help="keys that hold the text")
    data.add_argument("--skip-bad-lines", action="store_true", help="leave out, name and count")
    data.add_argument("--split-sentences", action="store_true", help="not supported")
    data.add_argument("--keep-newlines", action="store_true", help="only with --split-sentences")
    data.add_argument("--lang", default="english", help="only with --split-sentences")
    tokens = parser.add_argument_group("tokenization")
    tokens.add_argument("--tokenizer-type", required=True, help="HuggingFaceTokenizer, ...")
    tokens.add_argument("--tokenizer-model", help="folder, or SentencePiece .model file")
    tokens.add_argument(
        "--tokenizer-hf-no-include-special-tokens",
        action="store_true",
        help="leave out the BOS that a Hugging Face tokenizer's own rule adds",
    )
    tokens.add_argument("--vocab-size", type=int, help="must be the tokenizer's, if given")
    tokens.add_argument("--append-eod", action="store_true", help="end each document with EOD")
    out = parser.add_argument_group("output data")
    out.add_argument("--output-prefix", required=True, help="path without _KEY_document.bin")
    run = parser.add_argument_group("runtime")
    run.add_argument("--workers", type=int, default=1, help="processes that encode")
    run.add_argument("--partitions", type=int, default=1, help="parts, dealt out in turn")
    run.add_argument("--keep-sequential-samples", action="store_true", help="keep input order")
    run.add_argument("--log-interval", type=int, default=1000, help="documents between two lines")
    run.add_argument("--find-optimal-num-workers", action="store_true", help="not supported")
    run.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    # A scheduler that ends the job must leave as little behind as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    refuse_unsupported(args)
    options = EncodeOptions(**chosen(args, EncodeOptions))
    config = TokenizerConfig(**chosen(args, TokenizerConfig))
    tokenizer = build_tokenizer(config)
    if args.vocab_size not in (None, tokenizer.vocab_size):
        raise UserError(
            f"--vocab-size is {args.vocab_size}, but {config.tokenizer_model} has "
            f"{tokenizer.vocab_size} tokens; leave the flag out or give that number"
        )
    manifest = TokenizerManifest.from_tokenizer(tokenizer).to_json()
    # Imported here: worker processes read this file too, and need neither torch nor core.
    from megatron_biollm.data.preprocess import preprocess

    factory = functools.partial(build_tokenizer, config)
    reports = preprocess(options, factory, manifest, Reporter(args.log_interval))
    show([dataclasses.asdict(report) for report in reports], args.json)


def chosen(args: argparse.Namespace, cls: type) -> dict[str, Any]:
    """The arguments that are fields of a dataclass."""
    names = {field.name for field in dataclasses.fields(cls)}
    return {name: value for name, value in vars(args).items() if name in names}


def refuse_unsupported(args: argparse.Namespace) -> None:
    if args.split_sentences or args.keep_newlines:
        raise UserError(
            "--split-sentences and --keep-newlines are not supported: decoder models are trained "
            "on whole documents; leave the flags out, or give each text as a JSON list of sentences"
        )
    if args.find_optimal_num_workers:
        raise UserError(
            "--find-optimal-num-workers is not supported; leave it out and give --workers, up to "
            "the number of CPU cores"
        )


class Reporter:
    """Progress and left-out lines, on stderr."""

    def __init__(self, log_interval: int):
        self.log_interval = max(log_interval, 1)
        self.started = time.monotonic()
        self.documents = self.bytes = self.said = 0

    def __call__(self, batch: EncodedBatch) -> None:
        self.documents += batch.lines
        self.bytes += batch.bytes
        for message in batch.bad:
            print(f"left out: {message}", file=sys.stderr)
        if self.documents // self.log_interval > self.said:
            self.said = self.documents // self.log_interval
            seconds = max(time.monotonic() - self.started, 1e-9)
            print(
                f"Processed {self.documents} documents ({self.documents / seconds:.1f} docs/s, "
                f"{self.bytes / seconds / 2**20:.2f} MB/s).",
                file=sys.stderr,
            )


def show(reports: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(reports, indent=2))
        return
    for report in reports:
        print(
            "{prefix}: {documents} documents ({empty_documents} empty), {tokens} tokens, "
            "{bad_lines} bad lines left out".format(**report)
        )


if __name__ == "__main__":
    sys.exit(run_tool(main))
