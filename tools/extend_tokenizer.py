"""Adds biomedical pieces to the tokenizer of a base model, by continuing its byte-pair encoding.

The input (what tools/read_corpus.py reads: JSONL, PubMed XML, plain text, packed or not) is cut
by the base tokenizer, and its most frequent pairs become new pieces, which are merged after all
of the base's own: old ids keep their meaning and no text gets longer. The base is a SentencePiece
.model file (LLaMA-2's, Mistral's), a folder with tokenizer.model, or a folder with a BPE
tokenizer.json alone (of tools/train_tokenizer.py).

Writes tokenizer.model (of a SentencePiece base), tokenizer.json, tokenizer_config.json,
manifest.json, and extension.json, from which tools/convert_checkpoint.py makes the first rows of
the embedding: the mean of the rows which spelt a piece before. Reports the tokens per word before
and after in documents that were held out, and compares all forms of the tokenizer on them.
Exit status 1 where a check that the report lists fails.
"""

import argparse
import json
import sys
from pathlib import Path

from megatron_biollm.corpus.read import read_corpus
from megatron_biollm.corpus.report import CorpusReport
from megatron_biollm.corpus.write import require_documents
from megatron_biollm.log import Progress, run_tool
from megatron_biollm.tokenizer.extend_files import extend_tokenizer, require_new_folder
from megatron_biollm.tokenizer.extension_report import ExtensionReport, HeldOut, format_report
from megatron_biollm.tokenizer.learn_pieces import ChunkCounter, PieceRules, learn_pieces
from megatron_biollm.tokenizer.manifest import MANIFEST_FILE, TokenizerManifest
from megatron_biollm.tokenizer.mergeable import open_vocabulary

EXAMPLE = """example:
  python tools/extend_tokenizer.py --base Llama-2-7b-hf --input pubmed/ --output llama2-bio
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
    held_out, counter = HeldOut(arguments.held_out), ChunkCounter()
    require_new_folder(Path(arguments.output))
    base = open_vocabulary(arguments.base)
    read_texts(arguments.input, held_out, counter)
    learned = learn_pieces(base, counter.runs(base), arguments.add, rules)
    extension = extend_tokenizer(base, [piece.piece for piece in learned], arguments.output)
    report = ExtensionReport(base, extension, arguments.output)
    report.measure(held_out.documents)
    if arguments.compare:
        compare(arguments.compare, report)
    result = report.to_dict() | {
        "manifest": TokenizerManifest.read(Path(arguments.output) / MANIFEST_FILE).to_json(),
        "learned_from": {"documents": counter.documents, "characters": counter.characters},
        "held_out_beyond_limit": held_out.left_out,
    }
    print(json.dumps(result, indent=2) if arguments.json else summary(arguments, result))
    return 1 if any(result["checks"].values()) else 0


def read_texts(paths: list[str], held_out: HeldOut, counter: ChunkCounter) -> None:
    """Sends each document to one of the two."""
    report = CorpusReport()
    with Progress(None, "reading", unit="documents") as progress:
        for document in progress.track(read_corpus(paths, report)):
            if not held_out.takes(document.source, document.text):
                counter.add(document.text)
    print(report.to_text(), file=sys.stderr)
    require_documents(report.documents, report)


def compare(paths: list[str], report: ExtensionReport) -> None:
    with Progress(None, "comparing", unit="documents") as progress:
        documents = progress.track(read_corpus(paths, CorpusReport()))
        report.compare((document.source, document.text) for document in documents)


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
