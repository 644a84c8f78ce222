"""What `tools/preprocess_data.py` does with its flags, and what it says."""

import argparse
import dataclasses
import json
import signal
import sys
import time
from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.data.encode import EncodeOptions
from megatron_biollm.data.merge_shards import CorpusReport
from megatron_biollm.data.preprocess import preprocess
from megatron_biollm.data.shards import Seal
from megatron_biollm.log import get_logger, setup_logging
from megatron_biollm.tokenizer.manifest import TokenizerManifest
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer


def preprocess_tool(args: argparse.Namespace) -> None:
    """Encodes as the flags ask for and prints the result.

    Raises:
        UserError: flags that cannot be met, and whatever `preprocess` refuses.
    """
    setup_logging()
    # A scheduler that ends the job must leave as little behind as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _refuse_unsupported(args)
    options = EncodeOptions(**_chosen(args, EncodeOptions))
    config = TokenizerConfig(**_chosen(args, TokenizerConfig))
    tokenizer = build_tokenizer(config)
    if args.vocab_size not in (None, tokenizer.vocab_size):
        raise UserError(
            f"--vocab-size is {args.vocab_size}, but {config.tokenizer_model} has "
            f"{tokenizer.vocab_size} tokens; leave the flag out or give that number"
        )
    manifest = TokenizerManifest.from_tokenizer(tokenizer).to_json()
    reports = preprocess(options, tokenizer, manifest, Reporter(args.log_interval))
    for report in reports:
        _warn_of_false_ends(report)
    _show([dataclasses.asdict(report) for report in reports], args.json)


class Reporter:
    """Progress and left-out lines, on stderr."""

    def __init__(self, log_interval: int):
        self.log_interval = max(log_interval, 1)
        self.started = time.monotonic()
        self.documents = self.bytes = self.said = 0

    def __call__(self, seal: Seal) -> None:
        self.documents += seal.lines
        self.bytes += seal.bytes
        for message in seal.bad:
            print(f"left out: {message}", file=sys.stderr)
        if more := seal.bad_lines - len(seal.bad):
            print(f"left out: {more} more lines near there", file=sys.stderr)
        if self.documents // self.log_interval > self.said:
            self.said = self.documents // self.log_interval
            seconds = max(time.monotonic() - self.started, 1e-9)
            print(
                f"Processed {self.documents} documents ({self.documents / seconds:.1f} docs/s, "
                f"{self.bytes / seconds / 2**20:.2f} MB/s).",
                file=sys.stderr,
                flush=True,
            )


def _chosen(args: argparse.Namespace, cls: type) -> dict[str, Any]:
    """The arguments that are fields of a dataclass."""
    names = {field.name for field in dataclasses.fields(cls)}
    return {name: value for name, value in vars(args).items() if name in names}


def _refuse_unsupported(args: argparse.Namespace) -> None:
    if args.find_optimal_num_workers:
        raise UserError(
            "--find-optimal-num-workers is not supported; leave it out and give --workers, up to "
            "the number of CPU cores"
        )


def _warn_of_false_ends(report: CorpusReport) -> None:
    if report.false_document_ends:
        get_logger(__name__).warning(
            "%s: %d end-of-document tokens come from the text of documents, so that these end in "
            "their middle; Megatron-LM writes the same bytes with this tokenizer, "
            "--literal-control-tokens text keeps such text as text",
            report.prefix,
            report.false_document_ends,
        )


def _show(reports: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(reports, indent=2))
        return
    for report in reports:
        print(
            "{prefix}: {documents} documents ({empty_documents} empty), {tokens} tokens, "
            "{bad_lines} bad lines left out".format(**report)
        )
