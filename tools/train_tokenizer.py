"""Trains a byte-fallback BPE tokenizer, in LLaMA's style, on text files.

Reads the clean documents of tools/build_corpus.py, JSONL, plain text, and the files of every source
as they are, packed or not; of a folder all files. The output is a folder for --tokenizer-model,
with --tokenizer-type HuggingFaceTokenizer, and for transformers' AutoTokenizer. The same input
gives the same tokenizer.
"""

import argparse
import json
import sys
from pathlib import Path

from megatron_biollm.corpus.read import read_corpus, require_documents
from megatron_biollm.corpus.report import CorpusReport
from megatron_biollm.log import Progress, run_tool
from megatron_biollm.tokenizer.manifest import TokenizerManifest
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer
from megatron_biollm.tokenizer.train import train_tokenizer

EXAMPLE = """example:
  python tools/train_tokenizer.py --input corpus/documents --vocab-size 32000 --output tokenizer/"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", nargs="+", required=True, help="files and folders")
    parser.add_argument("--vocab-size", type=int, required=True, help="number of ids, 512 or more")
    parser.add_argument("--output", required=True, help="folder to make")
    parser.add_argument("--json", action="store_true", help="print the tokenizer's manifest")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    report = CorpusReport()
    progress = Progress(None, "reading", unit="documents")
    train_tokenizer(
        _texts(progress, arguments.input, report), arguments.vocab_size, arguments.output
    )
    tokenizer = build_tokenizer(TokenizerConfig(tokenizer_model=arguments.output))
    manifest = TokenizerManifest.from_tokenizer(tokenizer).to_json()
    if arguments.json:
        print(json.dumps(manifest, indent=2))
        return
    print(
        f"{Path(arguments.output)}: {manifest['vocab_size']} tokens from "
        f"{report.documents} documents, sha256 {manifest['sha256']}"
    )


def _texts(progress: Progress, paths: list[str], report: CorpusReport):
    for document in progress.track(read_corpus(paths, report)):
        yield document.text
    print(report.to_text(), file=sys.stderr)
    require_documents(report.documents, report)


if __name__ == "__main__":
    sys.exit(run_tool(main))
