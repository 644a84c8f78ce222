"""Adds biomedical pieces to the tokenizer of a base model, by continuing its byte-pair encoding.

The input (clean documents of tools/build_corpus.py, JSONL, plain text, files of every source as
they are) is cut by the base tokenizer, and its most frequent pairs become new pieces, which are
merged after all of the base's own: old ids keep their meaning and no text gets longer. The base is
a SentencePiece .model file (LLaMA-2's, Mistral's), a folder with tokenizer.model, or a folder with
a BPE tokenizer.json alone (of tools/train_tokenizer.py).

Writes tokenizer.model (of a SentencePiece base), tokenizer.json, tokenizer_config.json,
manifest.json, and extension.json, from which tools/convert_checkpoint.py makes the first rows of
the embedding: the mean of the rows which spelt a piece before. Reports the tokens per word before
and after in documents that were held out, and compares all forms of the tokenizer on them.
Exit status 1 where a check that the report lists fails.
"""

import argparse
import json
import sys
from collections.abc import Iterator

from megatron_biollm.corpus.read import read_corpus, require_documents
from megatron_biollm.corpus.report import CorpusReport
from megatron_biollm.log import Progress, run_tool
from megatron_biollm.tokenizer.extension_report import format_report
from megatron_biollm.tokenizer.learn_extension import learn_extension
from megatron_biollm.tokenizer.learn_pieces import PieceRules

EXAMPLE = """example:
  python tools/extend_tokenizer.py --base Llama-2-7b-hf --input corpus/documents/pubmed \\
      --output llama2-bio
  python tools/convert_checkpoint.py from-hf --input Llama-2-7b-hf --tokenizer llama2-bio \\
      --output checkpoints/base"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", required=True, help=".model file or folder of the base tokenizer")
    parser.add_argument("--input", nargs="+", required=True, help="files and folders to learn from")
    parser.add_argument("--output", required=True, help="folder to make")
    parser.add_argument("--add", type=int, default=2000, help="pieces, exactly (%(default)s)")
    parser.add_argument("--held-out", type=float, default=0.05, metavar="FRACTION",
                        help="documents to measure on, not learn from (%(default)s)")  # fmt: skip
    rules = PieceRules()
    parser.add_argument("--max-length", type=int, default=rules.max_length,
                        help="characters of a piece, its space counted (%(default)s)")  # fmt: skip
    parser.add_argument("--min-frequency", type=int, default=rules.min_frequency,
                        help="tokens a piece must save to be added (%(default)s)")  # fmt: skip
    parser.add_argument("--join-punctuation", action="store_true",
                        help="also pieces such as 'patients.', 1 to 2 %% more saved")  # fmt: skip
    parser.add_argument("--compare", nargs="+", default=[], metavar="PATH",
                        help="more files and folders on which all forms are compared")  # fmt: skip
    parser.add_argument("--show", type=int, default=30, help="pieces to list (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    rules = PieceRules(arguments.max_length, arguments.min_frequency, arguments.join_punctuation)
    result = learn_extension(
        arguments.base,
        read_texts(arguments.input, "reading"),
        arguments.output,
        arguments.add,
        rules,
        arguments.held_out,
        read_texts(arguments.compare, "comparing") if arguments.compare else (),
    )
    print(json.dumps(result, indent=2) if arguments.json else summary(arguments, result))
    return 1 if any(result["checks"].values()) else 0


def read_texts(paths: list[str], doing: str) -> Iterator[tuple[str, str]]:
    """The documents' sources and texts; says at the end what was met."""
    report = CorpusReport()
    with Progress(None, doing, unit="documents") as progress:
        for document in progress.track(read_corpus(paths, report)):
            yield document.source, document.text
    print(report.to_text(), file=sys.stderr)
    require_documents(report.documents, report)


def summary(arguments: argparse.Namespace, result: dict) -> str:
    manifest = result["manifest"]
    return (
        f"{arguments.output}: {manifest['vocab_size']} tokens ({manifest['base_vocab_size']} of "
        f"the base, {manifest['added_tokens']} learnt from {result['learned_from']['documents']} "
        f"documents), {manifest['padded_vocab_size']} embedding rows\n\n"
        f"{format_report(result, arguments.show)}"
    )


if __name__ == "__main__":
    sys.exit(run_tool(main))
