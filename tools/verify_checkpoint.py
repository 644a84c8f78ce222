"""Says which checkpoints are whole: committed, complete, every file as it was written.

Runs no code from the checkpoint. Exit status 0 if every checkpoint there is good, 1 if one is
not, 2 if there is none.

example:
  python tools/verify_checkpoint.py runs/first/checkpoints
  python tools/verify_checkpoint.py runs/first/checkpoints/step_00000100 --json
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from megatron_biollm.log import run_tool

if TYPE_CHECKING:
    from megatron_biollm.checkpoint.report import CheckpointReport


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path, help="one checkpoint, a folder of them, or a run")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    args = parser.parse_args()
    # Seconds of imports, not for --help.
    from megatron_biollm.checkpoint.report import find_checkpoints, inspect_checkpoint

    reports = []
    for folder in find_checkpoints(args.directory):
        print(f"reading {folder}", file=sys.stderr)
        reports.append(inspect_checkpoint(folder))
    if args.json:
        print(json.dumps([report.as_dict() for report in reports], indent=2))
    else:
        for report in reports:
            show(report)
    return 0 if all(report.good for report in reports) else 1


def show(report: "CheckpointReport") -> None:
    print(report.summary())
    for problem in report.problems:
        print(f"  problem: {problem}")


if __name__ == "__main__":
    sys.exit(run_tool(main))
