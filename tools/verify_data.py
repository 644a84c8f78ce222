"""Checks indexed corpora from end to end: structure, digests, token ids, empty documents.

Exit status 0 only if every corpus is fine. Reads no pickled data.

example:
  python tools/verify_data.py corpus_text_document --vocab-size 34000
"""

import argparse
import json
import sys

from megatron_biollm.data.verify import VerifyReport, verify_prefix
from megatron_biollm.log import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prefix", nargs="+", help="corpus, without .bin or .idx")
    parser.add_argument(
        "--vocab-size", type=int, help="ids must be below it; default: from the sidecar"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    args = parser.parse_args()
    reports = []
    for prefix in args.prefix:
        print(f"reading {prefix}", file=sys.stderr)
        reports.append(verify_prefix(prefix, args.vocab_size))
    if args.json:
        print(json.dumps([report.as_dict() for report in reports], indent=2))
    else:
        for report in reports:
            show(report)
    return 0 if all(report.fine for report in reports) else 1


def show(report: VerifyReport) -> None:
    print(
        f"{report.prefix}: {'fine' if report.fine else 'DAMAGED'}, {report.documents} documents "
        f"({report.empty_documents} empty), {report.sequences} sequences, {report.tokens} tokens, "
        f"largest id {report.max_token_id}"
    )
    for problem in report.problems:
        print(f"  problem: {problem}")
    for note in report.notes:
        print(f"  note: {note}")


if __name__ == "__main__":
    sys.exit(run_tool(main))
