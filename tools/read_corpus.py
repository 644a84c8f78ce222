"""Reads raw sources (JSONL, plain text, PubMed XML) into one JSONL file for the other tools.

Each line of the output is {"text", "id", "source", "licence", "date"}, without what is unknown.
Files of other kinds are named and passed over. Broken places (XML cut short, lines that are not
UTF-8) are reported with file and position; what is whole is kept. The first record of a PMID
stays, later ones are counted. The output appears only when it is complete.
"""

import argparse
import json
import sys

from megatron_biollm.corpus.read import read_corpus
from megatron_biollm.corpus.report import CorpusReport
from megatron_biollm.corpus.write import refuse_faults, refuse_output_among, write_jsonl
from megatron_biollm.log import Progress, run_tool

EXAMPLE = """example:
  python tools/read_corpus.py --input pubmed/ notes.jsonl.gz --output corpus.jsonl"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", nargs="+", required=True, help="files and folders")
    parser.add_argument("--output", required=True, help="JSONL file to write")
    parser.add_argument(
        "--text-documents",
        default="file",
        choices=("file", "blank_line"),
        help="a document of a .txt file: the whole file (default) or lines up to a blank one",
    )
    parser.add_argument("--strict", action="store_true", help="write nothing if any file is broken")
    parser.add_argument("--json", action="store_true", help="report as JSON instead of a table")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    refuse_output_among(arguments.input, arguments.output)
    report = CorpusReport()
    documents = read_corpus(arguments.input, report, arguments.text_documents)
    if arguments.strict:
        documents = refuse_faults(documents, report)
    progress = Progress(None, "reading", unit="documents")
    write_jsonl(progress.track(documents), arguments.output, report)
    print(json.dumps(report.to_dict(), indent=2) if arguments.json else report.to_text())


if __name__ == "__main__":
    sys.exit(run_tool(main))
