"""A soak: training runs on a SLURM of this machine, with seeded random faults brought upon them.

Every run must come to its target step with the losses of an undisturbed twin, and its books must
balance. Without SLURM (or with --torchrun) the same under plain torchrun, without node faults.

examples:
  python -m tests.soak --seed 1 --faults 30 --json docs/benchmarks/soak.json
  python -m tests.soak --faults 5 --kinds kill,sigstop,flip --folder /tmp/soak
  python -m tests.soak --table docs/benchmarks/soak.json
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from megatron_biollm.atomic import write_json
from megatron_biollm.config import UserError
from megatron_biollm.log import run_tool
from tests import slurm
from tests.soak.harness import Settings, Soak, say
from tests.soak.plan import TITLES, WITHOUT_NODES, make_plan
from tests.soak.table import add_to_report, is_good, make_report, markdown


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seed", type=int, default=1, help="of the choice of faults [%(default)s]")
    add("--faults", type=int, default=30, help="how many [%(default)s]")
    add("--per-run", type=int, default=5, help="faults of one training run [%(default)s]")
    add("--kinds", default="", help=f"of {', '.join(TITLES)} [all that can be done here]")
    add("--only", type=int, nargs="*", help="numbers of the runs to make of the plan")
    add("--folder", type=Path, help="for the runs; kept [a temporary one]")
    add("--torchrun", action="store_true", help="no SLURM, also where there is one")
    for name, default in vars(Settings()).items():
        flag = f"--{name.replace('_', '-')}"
        add(flag, type=float, default=default, help="see Settings [%(default)s]")
    add("--json", type=Path, help="write the report here, after every run; goes on from it")
    add("--table", type=Path, help="only print the tables of an earlier report")
    args = parser.parse_args()
    if args.table:
        print(markdown(json.loads(args.table.read_text())))
        return 0
    report = soak(args)
    print(markdown(report))
    return 0 if is_good(report) else 1


def soak(args: argparse.Namespace) -> dict:
    """Makes the runs of the plan one after another; gives the report."""
    with_slurm = not args.torchrun and slurm.missing() is None
    plans = make_plan(args.seed, args.faults, args.per_run, _kinds(args.kinds, with_slurm))
    earlier = _earlier(args.json, args.seed)
    done = {run["run"] for run in earlier["runs"]}
    plans = [plan for plan in plans if not args.only or plan.number in args.only]
    plans = [plan for plan in plans if plan.number not in done]
    settings = Settings(**{name: getattr(args, name) for name in vars(Settings())})
    about = {"seed": args.seed, "date": time.strftime("%Y-%m-%d"), "machine": _machine()}
    about["with"] = "SLURM, 2 nodes x 2 ranks" if with_slurm else "torchrun, 4 ranks"
    results, report = [], earlier
    with contextlib.ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place = folder / f"slurm-{os.getpid()}"
        cluster = stack.enter_context(slurm.Cluster(place)) if with_slurm else None
        runs = Soak(folder / "runs", cluster, settings)
        for plan in plans:
            results.append(runs.run(plan))
            report = add_to_report(earlier, make_report(results, **about))
            if args.json:
                write_json(args.json, report)
    say(f"{len(report['faults'])} faults, {len(report['runs'])} runs")
    return report


def _earlier(path: Path | None, seed: int) -> dict:
    """The report of a soak that was cut short, for its other runs to be added to."""
    if path is None or not path.exists():
        return {"faults": [], "runs": []}
    report = json.loads(path.read_text())
    if report["seed"] != seed:
        raise UserError(f"{path} is of seed {report['seed']}, not {seed}; give another --json")
    return report


def _kinds(given: str, with_slurm: bool) -> tuple[str, ...]:
    possible = tuple(TITLES) if with_slurm else WITHOUT_NODES
    if os.geteuid() != 0:
        possible = tuple(kind for kind in possible if kind != "disk_full")
    chosen = tuple(given.split(",")) if given else possible
    for kind in chosen:
        if kind not in possible:
            raise UserError(f"--kinds={kind} cannot be done here; choose of {', '.join(possible)}")
    return chosen


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{' '.join(names[0].split()[:2]) if names else 'unknown'}, {len(names)} cores"


if __name__ == "__main__":
    sys.exit(run_tool(main))
