"""How fast a checkpoint becomes a Hugging Face folder and the other way, beside copying its files.

The checkpoint is a slice of a large model: its widths with fewer layers, as the ranks of a layout
write it (`convert_slice.py`). Every conversion is a whole process from its start to its named and
synced output, parity check included, directly after a plain copy of the same files.
"""

import itertools
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

import torch

from megatron_biollm.checkpoint.retention import gigabytes
from megatron_biollm.checkpoint.stream import CheckpointReader
from megatron_biollm.config import UserError
from megatron_biollm.conversion.blocks import blocks, weight_bytes
from megatron_biollm.conversion.names import megatron_shape
from megatron_biollm.conversion.safetensors_stream import DTYPES
from megatron_biollm.conversion.staging import sync_tree
from megatron_biollm.log import Progress, get_logger
from megatron_biollm.model.config import ModelConfig
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.recipes.benchmarks.disk_speed import forget
from megatron_biollm.recipes.benchmarks.encode import Run, processor, run_process
from megatron_biollm.recipes.convert_slice import write_slice

COPY, OUT, IN = "copy", "to-hf", "from-hf"
logger = get_logger(__name__)
_TOOL = Path(__file__).parents[3] / "tools/convert_checkpoint.py"


@dataclass
class ConvertBenchmark:
    """What to measure.

    Attributes:
        model: widths and number of layers of the slice.
        tensor_model_parallel_size, pipeline_model_parallel_size: of the layout that wrote it.
        dtype: of its weights.
        workers: processes of a conversion; each number is measured.
        repeats: rounds; in each, every side runs once.
        max_memory_gb: cap given to the conversions.
        warm: leave the input in memory; otherwise it is dropped from the page cache before each
            run, of the copy too.
        scratch: folder for slice and outputs, which are removed; the system's if None.

    Raises:
        UserError: numbers below 1, an unknown dtype.
    """

    model: ModelConfig
    tensor_model_parallel_size: int = 8
    pipeline_model_parallel_size: int = 2
    dtype: str = "bfloat16"
    workers: list[int] = field(default_factory=lambda: [1, 2])
    repeats: int = 3
    max_memory_gb: float = 3.0
    warm: bool = False
    scratch: Optional[str] = None

    def __post_init__(self) -> None:
        for number in (self.repeats, *self.workers):
            if number < 1:
                raise UserError(f"{number} must be at least 1: --repeats and --workers count")
        if self.dtype not in DTYPES:
            raise UserError(f"--dtype {self.dtype} is unknown; there are: {', '.join(DTYPES)}")

    @property
    def parallel(self) -> ParallelConfig:
        return ParallelConfig(
            tensor_model_parallel_size=self.tensor_model_parallel_size,
            pipeline_model_parallel_size=self.pipeline_model_parallel_size,
        )


def benchmark_conversion(options: ConvertBenchmark) -> dict[str, Any]:
    """Times copying and both directions.

    Returns:
        A row for each side, and what they were measured on.

    Raises:
        UserError: too little disk, or a conversion failed or changed a bit.
    """
    size = weight_bytes(options.model, DTYPES[options.dtype].itemsize, padded=True)
    free = shutil.disk_usage(options.scratch or tempfile.gettempdir()).free
    # The slice, its export, and the copy or the checkpoint made of the export.
    if 3 * size > free:
        raise UserError(
            f"the benchmark needs {gigabytes(3 * size)} of disk and has {gigabytes(free)}; give "
            f"--scratch on another disk or fewer --layers"
        )
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="convert-benchmark-") as folder:
        source = Path(folder) / "slice"
        step = write_slice(source, options.model, options.parallel, DTYPES[options.dtype])
        runs = _rounds(options, step, Path(folder))
    rows = [_row(name, size, pairs) for name, pairs in runs.items()]
    return {
        "rows": rows,
        "input_bytes": size,
        "bit_equal_after_round_trip": True,  # or it would have been an error
        "options": {k: v for k, v in asdict(options).items() if k != "scratch"},
        "hardware": f"{processor()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "date": time.strftime("%Y-%m-%d"),
    }


def _rounds(
    options: ConvertBenchmark, step: Path, work: Path
) -> dict[tuple[str, int], list[tuple[Run, Run]]]:
    """Runs of every side, each with the copy before it."""
    sides = [(COPY, 0), *itertools.product((OUT, IN), options.workers)]
    runs: dict[tuple[str, int], list[tuple[Run, Run]]] = {side: [] for side in sides}
    total = options.repeats * 2 * len(options.workers)
    with Progress(total, "conversions", unit="runs") as progress:
        for _ in range(options.repeats):
            for side, run, copy in _round(options, step, work):
                runs[side].append((run, copy))
                runs[COPY, 0].append((copy, copy))
                logger.info(
                    "%s, %d processes: %.1f s, %.1f s of CPU; the copy before it %.1f s, %.1f s",
                    *side,
                    *(run.seconds, run.cpu_seconds, copy.seconds, copy.cpu_seconds),
                )
                progress.update()
    return runs


def _round(
    options: ConvertBenchmark, step: Path, work: Path
) -> Iterator[tuple[tuple[str, int], Run, Run]]:
    """Every side once, with its copy; no more than two outputs are on the disk at a time."""
    for workers in options.workers:
        exported, imported = work / "exported", work / "imported"
        for name, source, target in ((OUT, step, exported), (IN, exported, imported)):
            # Other programs' work changes within minutes, so each run has a copy of its own.
            copy = _copy(options, source, work / "copy")
            yield (name, workers), _convert(options, name, source, target, workers), copy
        require_equal(step, imported / step.name, options.model)
        shutil.rmtree(exported)
        shutil.rmtree(imported)


def _copy(options: ConvertBenchmark, source: Path, target: Path) -> Run:
    _prepare(options, source)
    start, before = time.perf_counter(), time.process_time()
    shutil.copytree(source, target)
    sync_tree(target)
    run = Run(time.perf_counter() - start, time.process_time() - before, 0.0)
    shutil.rmtree(target)
    return run


def _convert(
    options: ConvertBenchmark, direction: str, source: Path, target: Path, workers: int
) -> Run:
    _prepare(options, source)
    cap = ["--max-memory-gb", str(options.max_memory_gb), "--workers", str(workers)]
    ends = ["--input", str(source), "--output", str(target)]
    run = run_process(direction, [sys.executable, str(_TOOL), direction, *ends, *cap], None)
    report = json.loads(next(target.rglob("parity.json")).read_text())
    # Every process's own peak, added up. Samples of a process tree count what a fork shares twice.
    return replace(run, peak_rss_mb=1e3 * report["peak_memory_gb"])


def _prepare(options: ConvertBenchmark, source: Path) -> None:
    """Has earlier outputs off the disk's queue, and the input in memory or not."""
    os.sync()
    if not options.warm:
        forget(source)


def require_equal(one: Path, other: Path, sizes: ModelConfig) -> None:
    """Compares all weights of two checkpoints, padding included.

    Raises:
        UserError: a bit differs.
    """
    readers = [CheckpointReader(folder) for folder in (one, other)]
    for block in blocks(sizes, itemsize=4, padded=True):
        mapping, layer = block.weight.mapping, block.weight.layer
        shape = (block.rows, *megatron_shape(mapping, sizes)[1:])
        rows = []
        for reader in readers:
            dtype = reader.info(mapping.megatron, layer).dtype
            rows.append(torch.empty(shape, dtype=dtype))
            reader.read_rows(rows[-1], mapping.megatron, layer, block.start)
        if rows[0].dtype != rows[1].dtype or not torch.equal(*rows):
            raise UserError(
                f"{block.weight.megatron} differs after the round trip in rows {block.start} to "
                f"{block.stop}; every bit must be kept, report this as a bug"
            )


def _row(side: tuple[str, int], size: int, pairs: list[tuple[Run, Run]]) -> dict[str, Any]:
    runs = [run for run, _ in pairs]
    seconds = [run.seconds for run in runs]
    ratios = [copy.seconds / run.seconds for run, copy in pairs]
    median = statistics.median(seconds)
    return {
        "name": side[0],
        "workers": side[1] or None,
        "seconds": median,
        "fastest_s": min(seconds),
        "slowest_s": max(seconds),
        "cpu_s": statistics.median(run.cpu_seconds for run in runs),
        "mb_per_second": size / 1e6 / median,
        "copy_s": statistics.median(copy.seconds for _, copy in pairs),
        "ratio_to_copy": statistics.median(ratios),
        "lowest_ratio": min(ratios),
        "peak_rss_mb": max(run.peak_rss_mb for run in runs) or None,
    }


def table(report: dict[str, Any]) -> str:
    """The report as Markdown; "of copying" is speed, 1.0 as fast as the copy directly before."""
    options = report["options"]
    model = options["model"]
    lines = [
        f"{report['date']}, {report['hardware']}: {model['num_layers']} layers, hidden "
        f"{model['hidden_size']}, {report['input_bytes'] / 1e9:.2f} GB of {options['dtype']} as "
        f"TP{options['tensor_model_parallel_size']} x PP{options['pipeline_model_parallel_size']} "
        f"writes it, input {'in memory' if options['warm'] else 'not in memory'}, median of "
        f"{options['repeats']}, bit-equal after the round trip",
        "",
        "| | processes | s | fastest | slowest | CPU s | MB/s | copy s | of copying | lowest | "
        "MB held |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        held = f"{row['peak_rss_mb']:.0f}" if row["peak_rss_mb"] else ""
        lines.append(
            f"| {row['name']} | {row['workers'] or ''} | {row['seconds']:.1f} | "
            f"{row['fastest_s']:.1f} | {row['slowest_s']:.1f} | {row['cpu_s']:.1f} | "
            f"{row['mb_per_second']:.0f} | {row['copy_s']:.1f} | {row['ratio_to_copy']:.2f} | "
            f"{row['lowest_ratio']:.2f} | {held} |"
        )
    return "\n".join(lines)
