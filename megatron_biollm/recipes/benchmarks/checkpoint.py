"""How long the step loop stands still for a checkpoint, in the background and without.

One process, or several, train a model and save it in turns: with a save that holds the loop up
until the checkpoint is committed, and with one in the background, while steps go on.
What counts is the time that `save()` and all `poll()`s take out of the loop until the commit,
against the time of the save that holds it up, of the same state to the same disk.

In the same turns as many processes write as many bytes to the same disk, in one large file each,
and read them again: saves and loads are shares of what the disk writes (`disk_speed.py`).
"""

import contextlib
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import torch

from megatron_biollm.checkpoint.config import CheckpointConfig
from megatron_biollm.checkpoint.page_cache import forget_file
from megatron_biollm.checkpoint.sharded import Checkpointer
from megatron_biollm.checkpoint.verify import step_folder
from megatron_biollm.device.runtime import Device
from megatron_biollm.log import Progress
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.parallel.process_groups import (
    control_group,
    create_process_groups,
    destroy_process_groups,
)
from megatron_biollm.recipes.benchmarks.checkpoint_tables import shares
from megatron_biollm.recipes.benchmarks.disk_speed import read_seconds, write_seconds
from megatron_biollm.recipes.benchmarks.local_world import in_processes
from megatron_biollm.recipes.benchmarks.memory_watch import Watch
from megatron_biollm.recipes.benchmarks.timed_training import (
    TimedSteps,
    measured_on,
    our_trainer,
    random_batch,
)
from megatron_biollm.recipes.sidecars import versions
from megatron_biollm.training.optimizer import group_step_adam
from megatron_biollm.training.state import TrainState

FORMATS = {"reshardable": True, "fast": False}


@dataclass(kw_only=True)
class CheckpointBenchmark(TimedSteps):
    """What to measure; the saves of each kind and format are counted, after an untimed one each.

    Attributes:
        micro_batch_size: sequences of a step on every process.
        bf16: bf16 weights with fp32 master weights.
        scratch: folder to save into, which is emptied again; None takes the system's.
        processes: to start on this machine; 1 is this one, or what torchrun has started.
    """

    repeats: int = 3
    micro_batch_size: int = 1
    bf16: bool = False
    scratch: Optional[str] = None
    processes: int = 1


@dataclass
class Bench:
    """A model in training, and its checkpoints."""

    step: Callable[[], None]
    checkpointer: Checkpointer
    control: torch.distributed.ProcessGroup
    state: TrainState = field(default_factory=TrainState)

    def train(self) -> float:
        """One step; its seconds."""
        start = time.perf_counter()
        self.step()
        self.state.step += 1
        return time.perf_counter() - start

    def save(self, reshardable: bool, background: bool) -> float:
        """Calls `save()`; the loop's seconds."""
        self.checkpointer.config.async_save = background
        torch.distributed.barrier(group=self.control)
        start = time.perf_counter()
        self.checkpointer.save(self.state, reshardable)
        return time.perf_counter() - start

    def load(self, folder: Path, cold: bool) -> float:
        """Verifies and loads the newest checkpoint; seconds until all ranks have it."""
        for path in (path for path in folder.rglob("*") if path.is_file()):
            if cold:
                forget_file(path)
            else:
                read_seconds(path)
        return self.together(self.checkpointer.load_newest)

    def together(self, act: Callable[[], Any]) -> float:
        """Seconds from when all ranks begin until all have done it."""
        torch.distributed.barrier(group=self.control)
        start = time.perf_counter()
        act()
        torch.distributed.barrier(group=self.control)
        return time.perf_counter() - start


def benchmark_checkpoints(options: CheckpointBenchmark) -> dict[str, Any]:
    """Times saves of both formats in turns.

    Returns:
        Seconds, ratio, memory and size by format as this rank has seen them, and what they were
        measured on.
    """
    return in_processes(options.processes, _benchmark_of_rank, options)


def _benchmark_of_rank(options: CheckpointBenchmark) -> dict[str, Any]:
    device = options.ready("auto")
    with device.core_context(), group_step_adam():
        device.init_distributed(timeout_minutes=10)
        control = control_group(10)
        folder = _shared_folder(options, control)
        try:
            rows = _measure(options, _bench(options, device, control, folder), folder)
        finally:
            torch.distributed.barrier(group=control)
            shutil.rmtree(folder, ignore_errors=True)
            rank, processes = torch.distributed.get_rank(), torch.distributed.get_world_size()
            destroy_process_groups()
    report = {"rows": shares(rows), "stalls": rows, "rank": rank, "processes": processes}
    report |= measured_on(options, device)
    del report["options"]["scratch"]
    return report


def _shared_folder(options: CheckpointBenchmark, control: Any) -> Path:
    names = [tempfile.mkdtemp(dir=options.scratch) if control.rank() == 0 else None]
    torch.distributed.broadcast_object_list(names, src=0, group=control)
    return Path(names[0])


def _bench(options: CheckpointBenchmark, device: Device, control: Any, folder: Path) -> Bench:
    groups = create_process_groups(ParallelConfig())
    trainer = our_trainer(options.model, device, groups, options.micro_batch_size, options.bf16)
    batch = random_batch(options.model, options.micro_batch_size)
    # Two of each format, so that a save never has to wait for the removal of what it replaces.
    config = CheckpointConfig(keep_last=2, keep_last_fast=2)
    saved = trainer.model, trainer.optimizer
    checkpointer = Checkpointer(
        folder, config, *saved, control, _write_sidecars, check_sidecars=lambda _: None
    )
    return Bench(lambda: trainer.train_step(iter([batch]), 1), checkpointer, control)


def _write_sidecars(folder: Path) -> None:
    (folder / "versions.json").write_text(json.dumps(versions()))


def _measure(options: CheckpointBenchmark, bench: Bench, folder: Path) -> list[dict[str, Any]]:
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in FORMATS}
    memory = {name: {} for name in FORMATS}
    total = (options.repeats + 1) * len(FORMATS)
    progress = Progress(total, "saves of each kind", "save").track(
        [(repeat, name) for repeat in range(options.repeats + 1) for name in FORMATS]
    )
    for repeat, name in progress:
        if repeat == 0:
            memory[name] = _memory(bench, FORMATS[name])
        else:
            samples[name].append(_sample(bench, FORMATS[name], folder))
    saved, _ = bench.checkpointer.good
    size = _bytes(step_folder(folder, saved))
    return [_row(name, samples[name], memory[name], size) for name in FORMATS]


def _sample(bench: Bench, reshardable: bool, folder: Path) -> dict[str, float]:
    """The disk, one save that holds the loop up, two loads, steps alone, and one save in the
    background among steps."""
    bench.train()
    disk = _disk(bench, folder)
    held_up = bench.save(reshardable, background=False)
    saved = step_folder(folder, bench.state.step)
    # The fork of a save leaves pages to be copied or claimed by the first one who writes to them; a
    # run that starts, and loads, has none of those.
    bench.train()
    cold, warm = bench.load(saved, cold=True), bench.load(saved, cold=False)
    quiet = [bench.train() for _ in range(3)]
    called = bench.save(reshardable, background=True)
    polls, busy, done = [], [], False
    start = time.perf_counter()
    while not done:
        busy.append(bench.train())
        begun = time.perf_counter()
        done = bench.checkpointer.poll()
        polls.append(time.perf_counter() - begun)
    return {
        **disk,
        "cold_load_s": cold,
        "warm_load_s": warm,
        "held_up_s": held_up,
        "save_s": called,
        "polls_s": sum(polls),
        "longest_poll_s": max(polls),
        "stall_s": called + sum(polls),
        "until_committed_s": called + time.perf_counter() - start,
        "steps_meanwhile": len(busy),
        "step_s": statistics.median(quiet),
        "step_meanwhile_s": statistics.fmean(busy),
    }


def _disk(bench: Bench, folder: Path) -> dict[str, float]:
    """What the disk does with the bytes of the last checkpoint, shared among the processes."""
    saved, _ = bench.checkpointer.good
    size = _bytes(step_folder(folder, saved)) // bench.control.size()
    path = folder / f"plain_{bench.control.rank()}"
    try:
        # Not timed: memory that a virtual machine has not had yet is slow to come.
        write_seconds(path, size)
        path.unlink()
        written = bench.together(lambda: write_seconds(path, size))
        forget_file(path)
        cold, warm = (bench.together(lambda: read_seconds(path)) for _ in range(2))
        path.unlink()
        direct = _direct_write(bench, path, size)
    finally:
        path.unlink(missing_ok=True)
    return {
        "disk_write_s": written,
        **direct,
        "disk_cold_read_s": cold,
        "disk_warm_read_s": warm,
    }


def _direct_write(bench: Bench, path: Path, size: int) -> dict[str, float]:
    """Nothing where the file system cannot write past the page cache."""
    seconds: dict[str, float] = {}
    with contextlib.suppress(OSError, AttributeError):
        path.touch()
        direct = bench.together(lambda: write_seconds(path, size, direct=True))
        seconds["disk_direct_write_s"] = direct
    return seconds


def _memory(bench: Bench, reshardable: bool) -> dict[str, float]:
    """Bytes that a save adds to this rank and its writers; they are not timed meanwhile."""
    bench.train()
    with Watch() as watch:
        bench.save(reshardable, background=False)
    added = {"held_up_bytes": watch.added}
    bench.train()
    with Watch() as watch:
        bench.save(reshardable, background=True)
        while not bench.checkpointer.poll():
            bench.train()
    return added | {"background_bytes": watch.added}


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _row(
    name: str, samples: list[dict[str, float]], memory: dict[str, float], size: int
) -> dict[str, Any]:
    median = {key: statistics.median(s[key] for s in samples) for key in samples[0]}
    ratios = sorted(s["stall_s"] / s["held_up_s"] for s in samples)
    return {
        "name": name,
        "ratio": median["stall_s"] / median["held_up_s"],
        "lowest_ratio": ratios[0],
        "highest_ratio": ratios[-1],
        **median,
        **memory,
        "bytes": size,
        "samples": samples,
    }
