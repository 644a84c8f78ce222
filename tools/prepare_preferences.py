"""Brings rated answers of public data sets into TRL's conversational preference format.

    python tools/prepare_preferences.py mediqa2019 --output pairs/train.jsonl \\
        MEDIQA2019-Task3-QA-TrainingSet1-LiveQAMed.xml \\
        MEDIQA2019-Task3-QA-TrainingSet2-Alexa.xml
    python tools/prepare_preferences.py mediqa2019 --min-gap 2 --output pairs/clear.jsonl FILE.xml

mediqa2019: two answers to one question with different ratings are a pair; --min-gap asks for more
than one step between them. Files may be gzipped.
"""

import argparse
import json
import sys

from megatron_biollm.atomic import whole_file
from megatron_biollm.finetune.mediqa import mediqa_pairs
from megatron_biollm.log import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("format", choices=("mediqa2019",), help="what the files are")
    add("inputs", nargs="+", help="files, in this order")
    add("--output", required=True, help="JSON lines to write")
    add("--min-gap", type=int, default=1, help="smallest difference of ratings in a pair [1]")
    args = parser.parse_args()
    counts = {}
    with whole_file(args.output) as file:
        for path in args.inputs:
            counts[path] = 0
            for row in mediqa_pairs(path, args.min_gap):
                file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                counts[path] += 1
    print(json.dumps({"output": args.output, "pairs": counts}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
