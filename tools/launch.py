"""Runs a training under SLURM, or over several hosts without it, and says how it stands.

examples:
  python tools/launch.py sbatch --config run.yaml --slurm site.yaml slurm.nodes=32 --submit
  python tools/launch.py sbatch --config run.yaml slurm.time=12:00:00 --output job.sbatch
  python tools/launch.py status runs/70b
  python tools/launch.py guard --run-dir runs/70b --clear
  python tools/launch.py torchrun --config run.yaml --hosts node1,node2 --nproc-per-node 8

sbatch    writes a job script that saves before its time limit, requeues itself until the run is
          finished, leaves bad nodes out and stops a crash loop; --submit hands it to SLURM
guard     says whether the run may start, and why not; --clear after mending what was wrong
status    one page: state, steps, time left, starts, bad nodes, last lines of logs with errors
torchrun  the same over hosts without SLURM: prints one command per host; --run runs this host's
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from megatron_biollm.config import UserError, help_text
from megatron_biollm.launch import facts, guard
from megatron_biollm.launch.attempt import Attempt, Decision, Ended, Limits
from megatron_biollm.launch.report import report_run
from megatron_biollm.launch.slurm_config import JobConfig
from megatron_biollm.log import run_tool

HERE = Path(__file__).resolve().parent


def main() -> int:
    tools: dict[str, Callable[[list[str]], int]] = {
        "sbatch": sbatch,
        "guard": ask_guard,
        "status": status,
        "torchrun": torchrun,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=tools)
    return tools[parser.parse_args(sys.argv[1:2]).what](sys.argv[2:])


def _parser(what: str, description: str, epilog: str = "") -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"launch.py {what}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--config", action="append", required=True, help="the run's YAML, as for pretrain.py")
    add("--program", type=Path, default=HERE / "pretrain.py", help="what trains; finetune.py too")
    add("overrides", nargs="*", metavar="section.field=value", help="of the run, or slurm.*")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    for name, default in vars(Limits()).items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=int, default=default, help=f"[{default}]")


def _limits(args: argparse.Namespace) -> Limits:
    return Limits(**{name: getattr(args, name) for name in vars(Limits())})


def sbatch(argv: list[str]) -> int:
    from megatron_biollm.recipes.launch import JobRequest, submit, write_job

    parser = _parser("sbatch", "Writes (and submits) the job of a run.", help_text(JobConfig))
    _add_run(parser)
    add = parser.add_argument
    add("--slurm", action="append", default=[], help="YAML with the section slurm below")
    add("--output", type=Path, help="the script [RUN_DIR/launch/job.sbatch]")
    add("--submit", action="store_true", help="hand the script to sbatch")
    add("--jobs", type=int, default=1, help="submit so many, where no job may requeue itself [1]")
    args = parser.parse_intermixed_args(argv)
    request = JobRequest(
        args.config, args.slurm, args.overrides, args.program, HERE / "launch.py", args.output
    )
    script, run = write_job(request)
    print(f"wrote {script}", file=sys.stderr)
    lines = submit(script, run.run_path, args.jobs) if args.submit else [f"sbatch {script}"]
    print("\n".join(lines))
    return 0


def ask_guard(argv: list[str]) -> int:
    parser = _parser("guard", "Whether the run may start; start and end are for job scripts.")
    add = parser.add_argument
    add("moment", nargs="?", choices=("start", "end"), help="an attempt starts, or has ended")
    add("--run-dir", type=Path, required=True)
    add("--clear", action="store_true", help="forget failed starts and blamed nodes: mended")
    add("--attempt", help="name of the attempt, <job>_<restart>")
    add("--job", help="SLURM's job id")
    add("--train-iters", type=int, default=0, help="that the attempt trains to")
    for name in ("nodes", "usable", "jobs", "job"):
        add(f"--{name}-file", type=Path, help=argparse.SUPPRESS)
    for name in ("--exit-status", "--signalled", "--seconds-left"):
        add(name, type=int, default=0, help=argparse.SUPPRESS)
    _add_limits(parser)
    args = parser.parse_args(argv)
    if not args.run_dir.is_dir():
        raise UserError(f"--run-dir={args.run_dir} is no folder; give the run_dir of a run")
    if args.clear:
        guard.clear(args.run_dir, "cleared by hand")
    if args.moment is None:
        decision = guard.outlook(args.run_dir, _limits(args))
        print(f"{decision.action}: {decision.reason}")
        return 0 if decision.action in ("start", "leave") else 1
    if not args.attempt:
        raise UserError("--attempt is missing; job scripts give <job>_<restart>")
    decision = _answer_script(args)
    print(f"{decision.action}: {decision.reason}", file=sys.stderr)
    print(decision.line())
    return 0


def _answer_script(args: argparse.Namespace) -> Decision:
    attempt = Attempt(
        args.run_dir,
        args.attempt,
        args.train_iters,
        args.job,
        facts.read_names(args.nodes_file) or (),
        facts.read_names(args.usable_file) or (),
    )
    if args.moment == "start":
        return guard.before_start(attempt, _limits(args), facts.read_names(args.jobs_file))
    fate = facts.job_fate(args.job_file, facts.restart_of(args.attempt))
    ended = Ended(args.exit_status, bool(args.signalled), fate, args.seconds_left)
    return guard.after_end(attempt, ended, _limits(args))


def status(argv: list[str]) -> int:
    parser = _parser("status", "One page about a run.")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    _add_limits(parser)
    args = parser.parse_args(argv)
    if not args.run_dir.is_dir():
        raise UserError(f"{args.run_dir} is no folder; give the run_dir of a run")
    report = report_run(args.run_dir, _limits(args))
    print(json.dumps(report.as_dict(), indent=2) if args.json else "\n".join(report.lines()))
    return 0


def torchrun(argv: list[str]) -> int:
    from megatron_biollm.launch.torchrun import Hosts, show_commands, train_here
    from megatron_biollm.recipes.launch import load_for

    parser = _parser("torchrun", "A run over hosts that share a file system, without SLURM.")
    _add_run(parser)
    add = parser.add_argument
    add("--hosts", help="addresses, comma-separated, the first one leads")
    add("--nproc-per-node", type=int, default=1, help="processes on each host [1]")
    add("--run", action="store_true", help="run this host's share, instead of printing commands")
    add("--nnodes", type=int, help="number of hosts [that of --hosts, else 1]")
    add("--node-rank", type=int, default=0, help="which host this is, from 0 [0]")
    add("--master-addr", help="address of the first host")
    add("--master-port", type=int, default=29500, help="free port on the first host [29500]")
    _add_limits(parser)
    args = parser.parse_intermixed_args(argv)
    names = args.hosts.split(",") if args.hosts else []
    hosts = Hosts(
        args.nnodes or len(names) or 1,
        args.nproc_per_node,
        args.node_rank,
        args.master_addr or (names[0] if names else "127.0.0.1"),
        args.master_port,
    )
    run = load_for(args.program, args.config, args.overrides)
    run.check_world(hosts.nnodes * hosts.nproc_per_node)
    given = [word for path in args.config for word in ("--config", path)] + args.overrides
    if not args.run:
        place = [f"--nproc-per-node={args.nproc_per_node}", f"--master-port={args.master_port}"]
        if args.program != HERE / "pretrain.py":
            place.append(f"--program={args.program}")
        print(show_commands(names or [hosts.master_addr], sys.argv[0], [*place, *given]))
        return 0
    run.run_path.mkdir(parents=True, exist_ok=True)
    decision = train_here(
        hosts,
        [str(args.program), *given],
        run.run_path,
        run.training.train_iters,
        _limits(args),
        lambda text: print(text, file=sys.stderr, flush=True),
    )
    return 0 if decision.action == "stop" else 1


if __name__ == "__main__":
    sys.exit(run_tool(main))
