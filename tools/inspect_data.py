"""Shows what is in a corpus: lengths, tokens by source, frequent tokens, documents as text.

Reads indexed corpora (PREFIX of PREFIX.bin and .idx) and files of JSON lines (.jsonl, .gz, .zst) or
Parquet, or folders of either; of a folder of folders each one is a source. The files are read once
from end to end, in memory that does not grow with them. The tokenizer of an indexed corpus is the
one beside it that its sidecar knows by digest, or --tokenizer-model.

Exit status: 0; 1 if --verify found damage; 2, nothing could be inspected.

examples:
  python tools/inspect_data.py corpus_text_document --sample 2 --verify
  python tools/inspect_data.py corpus/encoded --plot lengths.png
  python tools/inspect_data.py corpus/documents --tokenizer-model tokenizer/ --json
  python tools/inspect_data.py corpus/documents/pubmed/00000.jsonl.zst --documents 0,17
"""

import argparse
import sys

from megatron_biollm.log import run_tool


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("input", nargs="+", help="prefix, file of JSON lines or Parquet, or folder")
    add("--documents", type=_numbers, default=[], help="show these, numbered from 0: 0,17")
    add("--sample", type=int, default=0, help="show so many documents drawn by --seed")
    add("--seed", type=int, default=0, help="of everything that is drawn [default: %(default)s]")
    add("--top", type=int, default=20, help="most frequent tokens to show [default: %(default)s]")
    add("--tokenizer-model", help="folder with tokenizer.json, or SentencePiece .model file")
    add("--tokenizer-type", help="default: what the corpus was made with, or what the files are")
    add("--eod-id", type=int, help="id that ends documents; default: the tokenizer's")
    add("--key", default="text", help="field that holds the text [default: %(default)s]")
    add(
        "--ratio-documents",
        type=int,
        default=200,
        help="documents on which tokens a word are measured [default: %(default)s]",
    )
    add("--plot", help="draw the lengths into this PNG, PDF or SVG")
    add("--verify", action="store_true", help="also check structure, digests and ids")
    add("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args()


def _numbers(value: str) -> list[int]:
    return [int(number) for number in value.split(",")]


def main() -> int:
    arguments = parse_arguments()

    # Imported after parsing: --help need not wait for it.
    from megatron_biollm.data.inspect_tool import inspect_tool

    return inspect_tool(arguments)


if __name__ == "__main__":
    sys.exit(run_tool(main))
