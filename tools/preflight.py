"""Looks for what would go wrong with a run, on its machines, before the run.

Versions and kernels on every machine, clocks, GPUs, disk space against the checkpoint forecast,
whether everybody sees run_dir, tokenizer against data against configuration, bandwidth of every
process group with the slowest pair named. One page; exit status 0 only if the run can start.

examples:
  python tools/preflight.py --config run.yaml --world-size 256          # from the login node
  srun torchrun --nnodes 32 --nproc_per_node 8 ... tools/preflight.py --config run.yaml
  torchrun --nproc_per_node 4 tools/preflight.py --config run.yaml --message-mb 4 --json
"""

import argparse
import json
import os
import sys

from megatron_biollm.log import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", action="append", help="YAML of the run; given again, it goes over the first"
    )
    parser.add_argument("--world-size", type=int, help="processes of the run, if not these")
    parser.add_argument("--message-mb", type=float, default=64, help="of bandwidth checks [64]")
    parser.add_argument("--write-mb", type=int, default=64, help="written to time the disk [64]")
    parser.add_argument("--json", action="store_true", help="the findings for programs")
    parser.add_argument("overrides", nargs="*", metavar="section.field=value")
    args = parser.parse_intermixed_args()
    from megatron_biollm.recipes.run_config import load_run_config

    config = load_run_config(args.config, args.overrides)
    from megatron_biollm.launch.findings import Finding, page
    from megatron_biollm.recipes.preflight import PreflightOptions, preflight

    options = PreflightOptions(args.world_size, args.message_mb, args.write_mb)
    result = preflight(config, options)
    if int(os.environ.get("RANK", 0)) == 0:
        findings = [Finding(**{**f, "hosts": tuple(f["hosts"])}) for f in result["findings"]]
        hosts = result["hosts"]
        title = f"{result['run_dir']}: {result['world_size']} processes, {len(hosts)} machines"
        print(json.dumps(result, indent=1) if args.json else page(title, findings), flush=True)
    return 0 if result["ready"] else 1


if __name__ == "__main__":
    sys.exit(run_tool(main))
