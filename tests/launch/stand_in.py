"""What a batch script starts instead of a training where the training does not matter.

Every rank does `train_iters` steps of 0.05 s; rank 0 commits empty checkpoints as the recipe does.
Files in the run folder make it misbehave: `crash` (an exception on every rank), `die_on_<node>`
(rank 0 of that node is killed), `refuse` (as a UserError), `wait` (no step).
"""

import os
import signal
import sys
import time
from pathlib import Path

import yaml

from megatron_biollm.launch.status import RunStatus


def main() -> None:
    config = yaml.safe_load(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
    run_dir, train_iters = Path(config["run_dir"]), config["training"]["train_iters"]
    rank, asked = int(os.environ["RANK"]), []
    signal.signal(signal.SIGUSR1, lambda *_: asked.append("SIGUSR1"))
    step = max((int(p.name[5:]) for p in run_dir.glob("checkpoints/step_*")), default=0)
    misbehave(run_dir, rank, step, train_iters)
    while step < train_iters and not asked:
        time.sleep(0.05)
        if not (run_dir / "wait").exists():
            step += 1
        if (run_dir / "stop").exists() and not (run_dir / "deaf_to_files").exists():
            asked.append("stop file")
    print(f"rank {rank} on {os.environ.get('SLURMD_NODENAME')}: step {step}, {asked}", flush=True)
    if rank == 0:
        commit(run_dir, step)
        state = "finished" if step == train_iters else "stopped"
        RunStatus(state, step, train_iters, step, ", ".join(asked)).write(run_dir)


def misbehave(run_dir: Path, rank: int, step: int, train_iters: int) -> None:
    with (run_dir / f"started_{rank}").open("a") as file:
        file.write(f"{os.environ.get('SLURMD_NODENAME')}\n")
    if (run_dir / "crash").exists():
        raise RuntimeError("as it was told")
    if (run_dir / f"die_on_{os.environ.get('SLURMD_NODENAME')}").exists():
        time.sleep(0.5 * (os.environ["LOCAL_RANK"] == "0"))
        os.kill(os.getpid(), signal.SIGKILL)
    if (run_dir / "refuse").exists():
        if rank == 0:  # the last to end, and the one that has something to say
            time.sleep(2)
            RunStatus("refused", step, train_iters, None, "as it was told").write(run_dir)
        sys.exit(2)


def commit(run_dir: Path, step: int) -> None:
    folder = run_dir / "checkpoints" / f"step_{step:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "COMMITTED").touch()


if __name__ == "__main__":
    main()
