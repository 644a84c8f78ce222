"""Searches training data for the items of benchmarks, and lists those that it holds.

    python tools/contamination.py --data-prefix corpus_text_document --tokenizer-model tokenizer \\
        --suite biollm15 --data benchmarks --output contamination.json --workers 2
    python tools/contamination.py --jsonl 'corpus/*.jsonl.zst' --suite jnlpba --split jnlpba=dev \\
        --data benchmarks --output contamination.json

The training data is indexed corpora (.bin and .idx, decoded with their tokenizer) or JSON lines
(.gz, .zst too). Case, punctuation and spacing do not count. An item's share is that of its n-grams
of 8 words that occur anywhere; contexts of questions are not looked for. What is done stays in
OUTPUT.scan until all is, so the same command goes on after a stop.

The file is for tools/evaluate.py --contamination, which scores the items found and the others
apart. Standard output has a line for each benchmark: items, items too short to be looked for, and
items of which 70 % of the n-grams were found.
"""

import argparse
import json
import sys
from pathlib import Path

from megatron_biollm.evaluation.options import add_places, places


def main() -> None:
    arguments = parse_arguments()
    # Seconds of imports, not for --help.
    from megatron_biollm.evaluation.suite import choose
    from megatron_biollm.recipes.contamination import Search, search
    from megatron_biollm.tokenizer.tokenizer import TokenizerConfig

    benchmarks = choose(arguments.suite.split(","))
    tokenizer = TokenizerConfig(arguments.tokenizer_type, arguments.tokenizer_model)
    findings = search(
        Search(
            benchmarks,
            arguments.data,
            arguments.output,
            arguments.data_prefix,
            arguments.jsonl,
            tokenizer if arguments.tokenizer_model else None,
            arguments.key,
            ngram=arguments.ngram,
            workers=arguments.workers,
            **places(arguments, [one.name for one in benchmarks]),
        )
    )
    rows = findings.summary()
    print(json.dumps(rows, indent=1) if arguments.json else "\n".join(map(line, rows)))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data-prefix", action="append", default=[], help="corpus without .bin; repeatable")
    add("--jsonl", action="append", default=[], help="file or pattern; repeatable")
    add("--key", default="text", help="of the text in JSON lines [text]")
    add("--tokenizer-type", default="HuggingFaceTokenizer", help="of the indexed corpora")
    add("--tokenizer-model", help="folder with tokenizer.json, or SentencePiece .model file")
    add("--suite", default="biollm15", help="suites and benchmarks, with commas [biollm15]")
    add_places(parser, data_required=True)
    add("--ngram", type=int, default=8, help="words of an n-gram [8]")
    add("--output", type=Path, required=True, help="file to write")
    add("--workers", type=int, default=1, help="processes [1]")
    add("--json", action="store_true", help="the counts as JSON on standard output")
    return parser.parse_args()


def line(row: dict) -> str:
    return (
        f"{row['benchmark']:<20}{row['split']:<8}{row['items']:>7} items "
        f"{row['too_short']:>6} too short {row['found']:>6} found"
    )


if __name__ == "__main__":
    # Imported here: worker processes read this file too, and need none of it.
    from megatron_biollm.log import run_tool

    sys.exit(run_tool(main))
