"""Draws the loss curve of one run or several."""

import argparse
import sys

from megatron_biollm.log import run_tool

EXAMPLE = """example:
  python tools/plot_run.py runs/first --output loss.png
  python tools/plot_run.py runs/first runs/second --output both.svg
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_dir", nargs="+", help="folder of a run, which holds metrics.jsonl")
    parser.add_argument(
        "--output", default="loss.png", help="PNG, PDF or SVG to write [default: %(default)s]"
    )
    arguments = parser.parse_args()

    # Imported after parsing: --help need not wait for matplotlib.
    from megatron_biollm.training.curves import plot_runs

    print(plot_runs(arguments.run_dir, arguments.output))


if __name__ == "__main__":
    sys.exit(run_tool(main))
