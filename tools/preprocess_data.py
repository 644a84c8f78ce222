"""Turns text into Megatron's indexed corpora: PREFIX_KEY_document.bin and .idx.

The flags are those of Megatron-LM's tools/preprocess_data.py and so are the bytes it writes, for
any number of workers. With --partitions N document i goes to part i modulo N and the parts follow
one another, as there; --keep-sequential-samples keeps the order of the input. The input is JSON
lines (plain, .gz, .zst) or Parquet. A sidecar, PREFIX_KEY_document.manifest.json, records the
tokenizer and the digests.

An error or Ctrl-C leaves no corpus, only what is finished, in PREFIX.shards: the same command goes
on from there, and what was made from another input, tokenizer or option is not used.

example:
  python tools/preprocess_data.py --input corpus.jsonl --output-prefix corpus \\
      --tokenizer-type HuggingFaceTokenizer --tokenizer-model tokenizer/ \\
      --append-eod --workers 4
"""

import argparse
import sys


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = parser.add_argument_group("input data")
    add = data.add_argument
    add("--input", required=True, help="JSON lines (.gz, .zst too) or Parquet; or a pattern")
    add("--json-keys", nargs="+", default=["text"], help="keys (columns) that hold the text")
    add("--skip-bad-lines", action="store_true", help="leave out, name and count")
    add("--split-sentences", action="store_true", help="a sequence per sentence, by nltk's Punkt")
    add("--keep-newlines", action="store_true", help="white space after a sentence stays")
    add(
        "--lang",
        default="biomedical",
        help="Punkt's parameters: ours, or english and so on of nltk",
    )
    tokens = parser.add_argument_group("tokenization")
    add = tokens.add_argument
    add("--tokenizer-type", required=True, help="HuggingFaceTokenizer, SentencePieceTokenizer, ...")
    add("--tokenizer-model", help="folder with tokenizer.json, or SentencePiece .model file")
    add(
        "--tokenizer-hf-no-include-special-tokens",
        action="store_true",
        help="leave out the BOS that a Hugging Face tokenizer's own rule adds",
    )
    add("--vocab-size", type=int, help="must be the tokenizer's, if given")
    add("--append-eod", action="store_true", help="end each document with EOD")
    add(
        "--literal-control-tokens",
        default="as-tokenizer",
        help="what the text '</s>' in a document becomes: what the tokenizer makes of it, as in "
        "Megatron-LM (as-tokenizer); ordinary characters (text); or a bad line (refuse)",
    )
    add("--exact", action="store_true", help="encode by the tokenizer itself, slowly")
    out = parser.add_argument_group("output data")
    out.add_argument("--output-prefix", required=True, help="path without _KEY_document.bin")
    out.add_argument("--dtype", default="auto", help="auto (Megatron-LM's choice), uint16, int32")
    run = parser.add_argument_group("runtime")
    add = run.add_argument
    add("--workers", type=int, default=1, help="processes that encode and write")
    add("--partitions", type=int, default=1, help="parts, dealt out in turn")
    add("--keep-sequential-samples", action="store_true", help="keep input order")
    add("--log-interval", type=int, default=1000, help="documents between two lines")
    add("--find-optimal-num-workers", action="store_true", help="not supported")
    add("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from megatron_biollm.data.preprocess_tool import preprocess_tool

    preprocess_tool(args)


if __name__ == "__main__":
    # Imported here: worker processes read this file too, and need none of it.
    from megatron_biollm.log import run_tool

    sys.exit(run_tool(main))
