"""Brings instruction data into JSON lines of messages, the form that finetune.py reads.

    python tools/prepare_conversations.py --format medquad --input MedQuAD_9_collections.tar.gz \\
        --output data/medquad.jsonl --held-out 0.05
    python tools/prepare_conversations.py --format mts-dialog --input MTS-Dialog-TrainingSet.csv \\
        --output data/sections.jsonl --system "You write clinical notes."
    python tools/prepare_conversations.py --format qa --question-column ask --answer-column reply \\
        --input a.tsv b.jsonl --output data/qa.jsonl --unique

messages    {"messages": [{"role": ..., "content": ...}]}: the same form, bad lines left out
qa          two columns or fields, of JSON lines, JSON, CSV, TSV or Parquet
alpaca      instruction, input, output (system, history)
sharegpt    conversations of from and value
medquad     XML: the folder, its .tar.gz, or one file
mts-dialog  CSV: conversation of doctor and patient, one section of the note
aci-bench   CSV or JSON: a whole visit and its note

Files may be gzipped; Parquet is read too. Standard output has the counts: read, kept, held out,
dropped by reason with the place of the first one. --held-out puts whole documents (medquad) or all
conversations with the same question aside, in OUTPUT_heldout.jsonl; the same ones for the same
share, whatever else is read.
"""

import argparse
import json
import sys
from pathlib import Path

from megatron_biollm.finetune.import_conversations import (
    FORMATS,
    ImportOptions,
    ImportReport,
    import_conversations,
)
from megatron_biollm.log import run_tool


def main() -> None:
    arguments = vars(parse_arguments())
    as_json = arguments.pop("json")
    report = import_conversations(ImportOptions(**arguments))
    print(json.dumps(report.to_json(), indent=1) if as_json else as_text(report))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--format", required=True, choices=FORMATS, help="what the files are")
    add("--input", dest="inputs", nargs="+", type=Path, required=True, help="files or folders")
    add("--output", type=Path, required=True, help="JSON lines to write")
    add("--system", help="message put before conversations that have none")
    add("--held-out", type=float, default=0.0, metavar="SHARE", help="put aside, 0 to 1 [0]")
    add("--question-column", dest="question", default="question", help="qa: column or field")
    add("--answer-column", dest="answer", default="answer", help="qa: column or field")
    add("--unique", action="store_true", help="leave out what came before, word for word")
    add("--json", action="store_true", help="print the counts as JSON")
    return parser.parse_args()


def as_text(report: ImportReport) -> str:
    lines = [f"{report.read:>8} read", f"{report.kept:>8} kept: {report.output}"]
    if report.held_out_output:
        lines.append(f"{report.held_out:>8} held out: {report.held_out_output}")
    for reason, count in sorted(report.dropped.items(), key=lambda each: -each[1]):
        lines.append(f"{count:>8} dropped: {reason} (first: {report.first[reason]})")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_tool(main))
