"""Will it fit, how long will it take, what will it cost: the best layouts for a run and some GPUs.

    python tools/plan.py --config run.yaml --gpus 256 --gpu h100-80gb
    python tools/plan.py model.preset=70b training.global_batch_size=512 --tokens 4e12 \\
        --nodes 32 --gpu h100-80gb --price-per-gpu-hour 2.5 --picture plan.png
    python tools/plan.py --config run.yaml --nodes 1 --gpu a100-80gb --explain "tp=2 pp=2 mbs=1"
    python tools/plan.py --config run.yaml --gpus 256 --gpu h100-80gb --write-layout best.yaml
    python tools/plan.py --validate

Tries every TP x PP x VPP x CP x DP, micro-batch size, recomputation and sharding of the optimizer.
The configuration's own layout is marked with *, and shown even if it does not fit. A written layout
goes beside the run's file: tools/pretrain.py --config run.yaml --config best.yaml. --validate holds
the predictions against published runs.
"""

import argparse
import json
import sys
from datetime import datetime
from pathlib import Path

from megatron_biollm.config import UserError, help_text
from megatron_biollm.log import run_tool
from megatron_biollm.recipes.run_config import RunConfig, load_run_config


def main() -> int:
    args = parse()
    if args.validate or args.calibrate:
        (validate if args.validate else calibrate)(args)
        return 0
    if args.gpu is None:
        raise UserError("which GPU? give for example --gpu h100-80gb")
    config = load_run_config(args.config, args.overrides)
    from megatron_biollm.recipes.plan import draw_layout, explained, make_plan, write_layout
    from megatron_biollm.recipes.plan_report import as_dict, explanation, outcome_dict, text

    plan = make_plan(config, options(args))
    outcome = explained(plan, args.explain) if args.explain else plan.best
    if args.json:
        shown = outcome_dict(plan, outcome) if args.explain else as_dict(plan, args.top)
        print(json.dumps(shown, indent=1))
    else:
        print(explanation(plan, outcome) if args.explain else text(plan, args.top))
    if args.write_layout:
        write_layout(outcome, args.write_layout)
    if args.picture:
        draw_layout(plan, outcome, args.picture)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=help_text(RunConfig),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config", action="append", help="a run's YAML; later ones go over earlier ones")
    add("--gpu", help="name in the GPU table: a100-80gb, h100-80gb, h200, b200, ...")
    add("--gpus", type=int, help="GPUs in all")
    add("--nodes", type=int, help="machines")
    add("--gpus-per-node", type=int, help="connected by NVLink [the GPU table's]")
    add("--gpu-table", type=Path, help="YAML with GPUs of your own, as planner/gpus.yaml")
    add("--tokens", type=float, help="to train on, 4e12 [train_iters of the configuration]")
    add("--memory-margin", type=float, default=0.05, help="of the GPU's memory, left free [0.05]")
    add("--top", type=int, default=10, help="layouts to show [10]")
    add("--explain", metavar="LAYOUT", help="one layout in full: 'tp=8 pp=2 vpp=5 recompute=full'")
    add("--write-layout", type=Path, metavar="YAML", help="write the best, or the explained one")
    add("--picture", type=Path, metavar="PNG", help="draw it: memory and timeline")
    add("--price-per-gpu-hour", type=float, help="any currency")
    add("--price-per-kwh", type=float, help="the same currency")
    add("--co2-per-kwh", type=float, help="grams of CO2 per kWh of your grid")
    add("--power-overhead", type=float, default=1.8,
        help="watts of the machine room per watt of the GPUs' limit [1.8]")  # fmt: skip
    add("--start", type=datetime.fromisoformat, help="of the run, 2026-12-01 [now]")
    add("--validate", action="store_true", help="hold the predictions against published runs")
    add("--calibrate", action="store_true", help="fit the constants to the calibrating half again")
    add("--json", action="store_true", help="for programs")
    add("overrides", nargs="*", metavar="section.field=value")
    return parser.parse_intermixed_args()


def options(args: argparse.Namespace):
    """The planner's options of the command line."""
    from megatron_biollm.planner.cost import Prices
    from megatron_biollm.recipes.plan import PlanOptions

    return PlanOptions(
        gpu=args.gpu,
        gpus=args.gpus,
        nodes=args.nodes,
        gpus_per_node=args.gpus_per_node,
        gpu_table=args.gpu_table,
        tokens=args.tokens,
        memory_margin=args.memory_margin,
        prices=Prices(
            per_gpu_hour=args.price_per_gpu_hour,
            per_kwh=args.price_per_kwh,
            co2_per_kwh=args.co2_per_kwh,
            power_overhead=args.power_overhead,
        ),
        start=args.start,
    )


def validate(args: argparse.Namespace) -> None:
    """Prints the errors on published runs."""
    from megatron_biollm.planner.validate import table, validate

    report = validate()
    print(json.dumps(report, indent=1) if args.json else table(report))


def calibrate(args: argparse.Namespace) -> None:
    """Prints the constants that fit the calibrating rows best, for planner/calibration.yaml."""
    from megatron_biollm.planner.calibrate import refit

    constants = refit()
    lines = (f"{name}: {value:.4g}" for name, value in constants.items())
    print(json.dumps(constants, indent=1) if args.json else "\n".join(lines))


if __name__ == "__main__":
    sys.exit(run_tool(main))
