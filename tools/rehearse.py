"""Rehearses a run on a laptop: every rank of the real recipe, on tensors without memory.

    python tools/rehearse.py --config run.yaml --world-size 256 model.vocab_size=34000
    python tools/rehearse.py --config run.yaml --world-size 256 --gpu h100-80gb --json > run.json

Builds each distinct rank, runs the real schedule forward and backward with the real number of
stages, takes the optimizer step, and describes every rank's part of a checkpoint. Prints peak
memory by category and pipeline rank, collectives by group, sizes of the checkpoint; exit status 1
and the rank, the rule and the remedy where a rule is broken.
"""

import argparse
import json
import sys

from megatron_biollm.config import UserError, help_text
from megatron_biollm.log import run_tool
from megatron_biollm.recipes.run_config import RunConfig, load_run_config


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=help_text(RunConfig),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config", action="append", help="the run's YAML; later ones go over earlier")
    add("--world-size", type=int, required=True, help="GPUs of the run")
    add("--gpu", help="GPU whose memory it must fit, as h100-80gb [not checked]")
    add("--gpu-table", help="YAML with GPUs of your own")
    add("--ranks", help="ranks to step: 0,64,128 [one of each pipeline rank]")
    add("--processes", type=int, default=2, help="that share the work [2]")
    add("--whole", action="store_true", help="run all micro-batches of a step, not some")
    add("--no-checkpoint", action="store_true", help="leave the checkpoint out")
    add("--json", action="store_true", help="the full report instead of the page")
    add("overrides", nargs="*", metavar="section.field=value")
    args = parser.parse_intermixed_args()
    config = load_run_config(args.config, args.overrides)
    # Seconds of imports, not for --help.
    from megatron_biollm.recipes.rehearse import RehearsalOptions, rehearse
    from megatron_biollm.rehearsal.page import table

    report = rehearse(
        config,
        RehearsalOptions(
            world_size=args.world_size,
            gpu=args.gpu,
            gpu_table=args.gpu_table,
            ranks=parse_ranks(args.ranks),
            processes=args.processes,
            whole=args.whole,
            checkpoint=not args.no_checkpoint,
        ),
    )
    print(json.dumps(report, indent=1) if args.json else table(report))
    return 1 if report["broken"] else 0


def parse_ranks(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(rank) for rank in text.split(",")]
    except ValueError:
        raise UserError(
            f"--ranks={text}: numbers with commas between them; 0,64,128, say"
        ) from None


if __name__ == "__main__":
    sys.exit(run_tool(main))
