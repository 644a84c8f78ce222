"""Data around the step: how long a run waits for it, and what opening and indexing a blend takes.

Loading: a rank of the 70B run reads its batches at ten times the rate at which it trains, from a
cold disk and from memory. Opening: a blend of many shards is indexed and opened, beside
megatron-core's own builder, whole processes in turns; both sides' indices are compared number by
number.
"""

import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np

from megatron_biollm.config import UserError
from megatron_biollm.data.layout import read_layout
from megatron_biollm.data.planned import plan_streams, settings
from megatron_biollm.log import Progress, get_logger
from megatron_biollm.recipes.benchmarks.data_corpora import (
    ABSTRACTS,
    PAPERS,
    write_shards,
    write_texts,
)
from megatron_biollm.recipes.benchmarks.data_loading import Loading
from megatron_biollm.recipes.benchmarks.data_opening import Job
from megatron_biollm.recipes.benchmarks.data_processes import run_process
from megatron_biollm.recipes.benchmarks.data_report import OURS, PEER, loading_rows, opening_rows
from megatron_biollm.recipes.benchmarks.disk_speed import forget

logger = get_logger(__name__)
SPLIT, SEQ_LENGTH, SEED = "970,30,0", 4096, 1234
TIMES_FASTER = 10
# The fastest published rate of a 70B model: Llama-2-70B in FP8, 64 H100, sequences of 4,096.
PUBLISHED_RATE = 1728.0
PUBLISHED_SOURCE = (
    "https://docs.nvidia.com/nemo-framework/user-guide/24.12/nemotoolkit/performance/"
    "performance_summary.html"
)
# examples/pretrain_70b/run.yaml: TP8 x PP4, 512 sequences over DP8 in micro-batches of 4.
GPUS_OF_REPLICA, MICRO_BATCH_SIZE, NUM_MICROBATCHES = 32, 4, 16


@dataclass(kw_only=True)
class DataBenchmark:
    """What to measure.

    Attributes:
        shards, documents: of the blend that is opened; abstracts, all together.
        megatokens: millions of ids of the corpora that are read, half abstracts and half papers.
        steps: timed steps of each way of loading.
        tokens_per_gpu: tokens a second of one GPU; the higher of the planned and published ones.
        workers: numbers of processes that read ahead, each measured.
        repeats: processes of each side that index and open.
        seq_length: tokens of a sample.
        scratch: folder for the corpora, which are removed; None takes the system's.

    Raises:
        UserError: numbers below 1.
    """

    shards: int = 100
    documents: int = 1_000_000
    megatokens: int = 100
    steps: int = 20
    tokens_per_gpu: float = PUBLISHED_RATE
    workers: list[int] = field(default_factory=lambda: [0, 1, 2])
    repeats: int = 3
    seq_length: int = SEQ_LENGTH
    scratch: Optional[str] = None

    def __post_init__(self) -> None:
        for name in ("shards", "documents", "megatokens", "steps", "repeats", "seq_length"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1")

    @property
    def tokens_needed(self) -> float:
        """A second, at ten times the rate: every rank reads what its replica trains on."""
        return TIMES_FASTER * self.tokens_per_gpu * GPUS_OF_REPLICA

    @property
    def step_s(self) -> float:
        """Seconds of a step at that rate."""
        return MICRO_BATCH_SIZE * NUM_MICROBATCHES * self.seq_length / self.tokens_needed


def benchmark_data(options: DataBenchmark) -> dict[str, Any]:
    """Measures loading, and indexing and opening beside core.

    Returns:
        rows of figures beside their bars, `loading` and `opening` in full, and what they were
        measured on.

    Raises:
        UserError: a process failed, or a sample differs from core's.
    """
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="data-benchmark-") as folder:
        opening, compared = _opening(options, Path(folder) / "opening")
        loading = _loading(options, Path(folder) / "loading")
    return {
        "rows": [*loading_rows(loading, options.tokens_needed), *opening_rows(opening)],
        "loading": loading,
        "opening": opening,
        "compared": compared,
        "step_s": options.step_s,
        "micro_batches": [MICRO_BATCH_SIZE, NUM_MICROBATCHES],
        "rate_source": PUBLISHED_SOURCE if options.tokens_per_gpu == PUBLISHED_RATE else "given",
        **_measured_on(options),
    }


# Opening


def _opening(options: DataBenchmark, folder: Path) -> tuple[list[dict[str, Any]], dict[str, int]]:
    logger.info("writing %d shards", options.shards)
    prefixes = write_shards(folder / "shards", options.shards, options.documents, ABSTRACTS)
    jobs = {side: _job(options, prefixes, folder / side) for side in (OURS, PEER)}
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    with Progress(options.repeats * 4, "processes that index and open", unit="runs") as progress:
        for _ in range(options.repeats):
            for side, job in jobs.items():
                shutil.rmtree(job.cache, ignore_errors=True)
                for what in ("build", "open"):
                    runs.setdefault((what, side), []).append(_run(folder, side, what, job))
                    progress.update()
    compared = compare_indices(jobs[OURS], jobs[PEER])
    sides = [{"what": what, "side": side, **_medians(of)} for (what, side), of in runs.items()]
    shutil.rmtree(folder)
    return sides, compared


def _job(options: DataBenchmark, prefixes: list[str], cache: Path) -> Job:
    """Every shard by its size. Core is asked for so many samples that it plans one epoch."""
    tokens = [read_layout(prefix).tokens for prefix in prefixes]
    shares = [sum(tokens) * share / options.seq_length for share in (0.97, 0.03)]
    samples = [int(0.9 * shares[0]), int(0.4 * shares[1])]
    weights = [str(count) for count in tokens]
    return Job(prefixes, weights, SPLIT, samples, options.seq_length, SEED, str(cache))


def _run(folder: Path, side: str, what: str, job: Job) -> dict[str, float]:
    command = [
        "megatron_biollm.recipes.benchmarks.data_opening",
        side,
        what,
        job.write(folder / "job.json"),
    ]
    os.sync()  # ours has its index on disk, and would wait for what others have still to write
    return run_process(command)


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    found = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    spread = [run["wall_s"] for run in runs]
    return found | {"wall_fastest_s": min(spread), "wall_slowest_s": max(spread)}


def compare_indices(ours: Job, core: Job) -> dict[str, int]:
    """Compares every shard's document, sample and shuffle index, which decide all its samples.

    Raises:
        UserError: one differs.
    """
    from megatron_biollm.recipes.benchmarks.data_peer import core_indices

    theirs = core_indices(Path(core.cache))
    counts = {"shards_and_splits": 0, "documents": 0, "samples": 0}
    for part in _parts(ours):
        index = part.find_index(0)
        arrays = (index.documents, index.samples, index.shuffle)
        for array, path in zip(arrays, theirs[part.prefix, part.split], strict=True):
            if not np.array_equal(array, np.load(path, mmap_mode="r")):
                raise UserError(f"{path.name} of {part.prefix} ({part.split}) is not core's")
        counts["shards_and_splits"] += 1
        counts["documents"] += len(index.documents)
        counts["samples"] += len(index.shuffle)
    return counts


def _parts(job: Job) -> Iterator[Any]:
    data = job.data()
    streams = plan_streams(data, settings(data, job.seq_length, job.seed, eod=0))
    return (part for stream in streams if stream for part in stream.sources)


# Loading


def _loading(options: DataBenchmark, folder: Path) -> list[dict[str, Any]]:
    logger.info("writing corpora of %d million ids", options.megatokens)
    job = _texts(options, folder)
    ways = [(cold, workers) for workers in options.workers for cold in (True, False)]
    found = []
    with Progress(2 * len(ways), "ways of loading", unit="runs") as progress:
        for cold, workers in ways:
            described = {"num_workers": workers, "cold": cold}
            for step_s in (0.0, options.step_s):
                batch = (MICRO_BATCH_SIZE, NUM_MICROBATCHES, workers, options.steps, step_s)
                loading = Loading(asdict(job), *batch).write(folder / "loading.json")
                if cold:
                    forget(folder)
                described["pace" if step_s else "full"] = run_process(
                    ["megatron_biollm.recipes.benchmarks.data_loading", loading]
                )
                progress.update()
            found.append(described)
    return found


def _texts(options: DataBenchmark, folder: Path) -> Job:
    """Eight corpora of abstracts and two of papers, as many tokens of each kind."""
    tokens, prefixes = options.megatokens * 1_000_000, []
    for kind, lengths, count in (("abstracts", ABSTRACTS, 8), ("papers", PAPERS, 2)):
        for number in range(count):
            path = folder / f"{kind}_{number}"
            prefixes.append(write_texts(path, tokens // (2 * count), lengths, seed=number))
    weights = [str(read_layout(prefix).tokens) for prefix in prefixes]
    cache = str(folder / "index")
    job = Job(prefixes, weights, "1", [1, 1], options.seq_length, SEED, cache)
    from megatron_biollm.data.planned import ensure_index

    ensure_index(job.data(), job.seq_length, job.seed, train_samples=1)
    return job


def _measured_on(options: DataBenchmark) -> dict[str, Any]:
    from megatron_biollm.device.runtime import select_device
    from megatron_biollm.recipes.benchmarks.timed_training import measured_on

    found = measured_on(options, select_device("cpu"))
    found["options"].pop("scratch")
    return found | {"cores": len(os.sched_getaffinity(0))}
