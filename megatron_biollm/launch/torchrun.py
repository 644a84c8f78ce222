"""A run over several hosts without SLURM: the same guard, the same signals, plain torchrun."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psutil

from megatron_biollm.config import UserError
from megatron_biollm.launch import lock
from megatron_biollm.launch.attempt import Attempt, Decision, Ended, Limits
from megatron_biollm.launch.guard import AGAIN_DELAY_S, after_end, before_start
from megatron_biollm.launch.history import read_history

# The shell's `trap ''` is inherited: torchrun and what it starts ignore SIGUSR1 until they ask for
# it, as the trainers do.
KEEP_TORCHRUN_ALIVE = "trap '' USR1; exec \"$@\""
LONG_S = 10**6
# How often a launcher looks up, and how long the other hosts may take to end when the first one
# has seen the run stop.
LOOK_S, END_TOGETHER_S = 5.0, 15.0


@dataclass(frozen=True)
class Hosts:
    """The machines of a run.

    Attributes:
        nnodes: how many.
        nproc_per_node: processes on each.
        node_rank: of this one.
        master_addr: address of the first one.
        master_port: a free port there.

    Raises:
        UserError: a rank or a port out of range.
    """

    nnodes: int
    nproc_per_node: int
    node_rank: int = 0
    master_addr: str = "127.0.0.1"
    master_port: int = 29500

    def __post_init__(self) -> None:
        if not 0 <= self.node_rank < self.nnodes:
            raise UserError(
                f"--node-rank={self.node_rank} must be from 0 to {self.nnodes - 1}, with "
                f"{self.nnodes} hosts; number the hosts from 0"
            )
        if not 1024 <= self.master_port <= 65535:
            raise UserError(
                f"--master-port={self.master_port} must be from 1024 to 65535; choose a free one"
            )

    def command(self, program: list[str]) -> list[str]:
        """torchrun's command on this host."""
        return [
            sys.executable,
            "-m",
            "torch.distributed.run",
            f"--nnodes={self.nnodes}",
            f"--nproc-per-node={self.nproc_per_node}",
            f"--node-rank={self.node_rank}",
            f"--master-addr={self.master_addr}",
            f"--master-port={self.master_port}",
            "--max-restarts=0",
            *program,
        ]


def train_here(
    hosts: Hosts,
    program: list[str],
    run_dir: Path,
    train_iters: int,
    limits: Limits,
    say: Callable[[str], None],
) -> Decision:
    """Runs this host's torchrun until the run is over, as the guard says on the first host.

    SIGUSR1, SIGTERM and SIGINT have the trainers save and stop.

    Returns:
        The last decision: stop, refuse, or requeue where restarts here are used up.
    """
    begun = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    started = time.time()
    for repeat in range(limits.max_restarts + 1):
        name = f"torchrun-{begun}_0" + (f"_{repeat}" if repeat else "")
        attempt = Attempt(run_dir, name, train_iters)
        decision = _one_attempt(hosts, program, attempt, limits, say, started)
        say(f"{decision.action}: {decision.reason}")
        if decision.action != "again":
            break
        time.sleep(decision.delay_s)
    return decision


def _one_attempt(
    hosts: Hosts,
    program: list[str],
    attempt: Attempt,
    limits: Limits,
    say: Callable[[str], None],
    started: float,
) -> Decision:
    if hosts.node_rank:
        wanted = partial(_goes_on, attempt.run_dir, started, END_TOGETHER_S)
        status = run_until_over(hosts.command(program), say, wanted)
        return _follow(status, attempt, limits, started)
    decision = before_start(attempt, limits, lock.running_jobs())
    if decision.action != "start":
        return decision
    say(decision.reason)
    status = run_until_over(hosts.command(program), say, partial(lock.touch, attempt.run_dir))
    return after_end(attempt, Ended(status, seconds_left=LONG_S), limits)


def _follow(status: int, attempt: Attempt, limits: Limits, started: float) -> Decision:
    """What a further host does: as the first one, whose decisions are in the run's history."""
    if status == 0:
        return Decision("stop", "ended without an error")
    if not _goes_on(attempt.run_dir, started):
        stop = read_history(attempt.run_dir).stop or {}
        return Decision("refuse", str(stop.get("reason")))
    action = "again" if attempt.repeat < limits.max_restarts else "requeue"
    return Decision(action, f"torchrun ended with status {status}", AGAIN_DELAY_S)


def _goes_on(run_dir: Path, since: float, grace: float = 0.0) -> bool:
    """Whether the first host has not stopped the run since a time, or only just."""
    stop = read_history(run_dir).stop
    if stop is None:
        return True
    when = datetime.fromisoformat(stop["time"]).timestamp()
    return when < int(since) or time.time() - when < grace


def run_until_over(
    command: list[str], say: Callable[[str], None], look: Callable[[], object]
) -> int:
    """Runs torchrun and passes requests to stop on to its ranks.

    Args:
        command: torchrun's.
        say: tells people.
        look: called now and then; False ends torchrun.

    Returns:
        torchrun's exit status.
    """
    process = subprocess.Popen(
        ["bash", "-c", KEEP_TORCHRUN_ALIVE, "node", *command], start_new_session=True
    )

    def ask(number: int, frame: object) -> None:
        say(f"{signal.Signals(number).name}: asking the run to save and stop")
        ask_ranks(process.pid)

    before = {n: signal.signal(n, ask) for n in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)}
    try:
        while True:
            try:
                return process.wait(timeout=LOOK_S)
            except subprocess.TimeoutExpired:
                if look() is False:
                    say("the first host has ended the run")
                    process.terminate()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ask_ranks(torchrun: int) -> None:
    """Sends SIGUSR1 to the ranks that a torchrun process has started."""
    try:
        ranks = psutil.Process(torchrun).children()
    except psutil.NoSuchProcess:
        return
    for rank in ranks:
        try:
            os.kill(rank.pid, signal.SIGUSR1)
        except ProcessLookupError:
            continue


def show_commands(hosts: list[str], launcher: str, arguments: list[str]) -> str:
    """What to run on each host, one line each."""
    lines = []
    for rank, host in enumerate(hosts):
        place = [f"--nnodes={len(hosts)}", f"--node-rank={rank}", f"--master-addr={hosts[0]}"]
        command = ["python", launcher, "torchrun", "--run", *place, *arguments]
        lines.append(f"# on {host}\n{shlex.join(command)}")
    return "\n".join(lines)
