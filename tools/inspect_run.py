"""Lists what went wrong in a run's steps, or shows samples of its stream: documents, ids, text.

examples:
  python tools/inspect_run.py runs/first
  python tools/inspect_run.py runs/first --step 1200 --show 8
  python tools/inspect_run.py runs/first --samples 19200:19216 --json
"""

import argparse
import json
import sys

from megatron_biollm.config import UserError
from megatron_biollm.log import run_tool


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", help="folder of a run, which holds config.yaml")
    parser.add_argument("--step", type=int, help="only incidents of this step")
    parser.add_argument(
        "--show", type=int, default=3, help="samples to show of each incident [default: 3]"
    )
    parser.add_argument("--samples", help="show these positions of the stream instead: FIRST:END")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()

    # Imported after parsing: --help need not wait for torch.
    from megatron_biollm.recipes.inspect_run import as_text, list_incidents, show_samples

    if arguments.samples:
        rows = show_samples(arguments.run_dir, [_range(arguments.samples)])
    else:
        rows = list_incidents(arguments.run_dir, arguments.step, arguments.show)
    nothing = "no incidents"
    print(json.dumps(rows, indent=2) if arguments.json else as_text(rows) or nothing)


def _range(text: str) -> list[int]:
    first, _, end = text.partition(":")
    if not (first.isdigit() and end.isdigit() and int(first) < int(end)):
        raise UserError(f"--samples is {text}; give FIRST:END, END not included, as in 100:116")
    return [int(first), int(end)]


if __name__ == "__main__":
    sys.exit(run_tool(main))
