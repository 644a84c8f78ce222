"""Proves from a run's folder that no sample was lost or trained on twice.

Every position of the data stream must be trained on once, or be listed as skipped or jumped over;
batches are read from the corpora again and must have the hashes that training saw. Exit status 0
only if the books balance.

examples:
  python tools/verify_run.py runs/first
  python tools/verify_run.py runs/first --rehash all --json
"""

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any, Optional

from megatron_biollm.log import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", help="folder of a run, which holds metrics.jsonl")
    parser.add_argument(
        "--rehash", type=_count, default=20, help="batches to read again, or all [default: 20]"
    )
    parser.add_argument("--seed", type=int, default=0, help="draws them [default: %(default)s]")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()

    # Imported after parsing: --help need not wait for torch.
    from megatron_biollm.recipes.ledger import check_ledger

    ledger = check_ledger(arguments.run_dir, arguments.rehash, arguments.seed)
    if arguments.json:
        print(json.dumps(asdict(ledger), indent=2))
    else:
        show(ledger)
    return 1 if ledger.problems else 0


def _count(value: str) -> Optional[int]:
    return None if value == "all" else int(value)


def show(ledger: Any) -> None:
    from megatron_biollm.recipes.ledger import count

    state = "DOES NOT BALANCE" if ledger.problems else "balances"
    print(f"{ledger.run_dir}: steps {ledger.steps[0]} to {ledger.steps[1]}; the ledger {state}")
    for name in ("trained", "skipped", "jumped"):
        ranges = getattr(ledger, name)
        shown = ", ".join(f"{first}-{end - 1}" for first, end in ranges[:8])
        more = ", ..." if len(ranges) > 8 else ""
        print(f"  {name:8} {count(ranges):>12,} samples  {shown}{more}")
    print(f"  rewinds  {ledger.rewinds:>12,}")
    print(f"  rehashed {len(ledger.rehashed):>12,} batches")
    for problem in ledger.problems:
        print(f"  problem: {problem}")
    for note in ledger.notes:
        print(f"  note: {note}")


if __name__ == "__main__":
    sys.exit(run_tool(main))
