"""How fast log-likelihoods are scored here, beside lm-eval's own `hf` on the same exported model.

Both sides get the same requests of real benchmarks, in turns in one process, with the same number
of threads. `hf` runs with several batch sizes, and the figure is the ratio to its fastest.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from megatron_biollm.config import UserError
from megatron_biollm.device.runtime import Device, select_device
from megatron_biollm.evaluation.asking import Asking
from megatron_biollm.evaluation.offline import prepare_lm_eval
from megatron_biollm.evaluation.plan import Plan, Prepared, prepare
from megatron_biollm.evaluation.suite import choose
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.parallel.process_groups import destroy_process_groups
from megatron_biollm.recipes.benchmarks.timed_training import OURS, in_turns
from megatron_biollm.recipes.generate import build_generator, candidates
from megatron_biollm.recipes.run_config import load_model_config
from megatron_biollm.recipes.sidecars import versions

CONTINUATIONS = ("letter", "text")
Score = Callable[[], list[tuple[float, bool]]]


@dataclass(kw_only=True)
class EvaluateBenchmark:
    """What to measure.

    Attributes:
        checkpoint: run, or one step. hf: the same model, exported.
        data: folder with the benchmarks' folders. suite: benchmarks with choices.
        limit: items of each.
        num_fewshot: examples in the prompts.
        batch_sizes: rows of a batch of `hf`.
        batch_tokens: most tokens of a batch of ours.
        repeats: timed rounds of each side. threads: of torch.

    Raises:
        UserError: numbers below 1.
    """

    checkpoint: str
    hf: str
    data: str
    suite: Sequence[str] = field(default_factory=lambda: ["medqa"])
    limit: int = 100
    num_fewshot: int = 0
    batch_sizes: Sequence[int] = field(default_factory=lambda: [1, 8, 32])
    batch_tokens: int = 4096
    repeats: int = 5
    threads: int = 1
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("limit", "batch_tokens", "repeats", "threads"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1")
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            raise UserError(f"batch_sizes={self.batch_sizes} must be at least 1 each")


def benchmark_evaluation(options: EvaluateBenchmark) -> dict[str, Any]:
    """Times both sides on each benchmark, with letters and with whole texts as continuations.

    Returns:
        For each: requests, seconds of both sides, the ratio, and the largest difference between
        their log-likelihoods.
    """
    plan = Plan(choose(options.suite), Path(options.data), limit=options.limit)
    prepare(plan)
    prepare_lm_eval()
    torch.set_num_threads(options.threads)
    device = select_device(options.device)
    # Built outside core's context: its answers for CUDA would slow the peer down.
    peer, rows = _peer(options, device), []
    try:
        ours = _ours(options, device)
        for continuation in CONTINUATIONS:
            asking = Asking(
                method="likelihood", continuation=continuation, num_fewshot=options.num_fewshot
            )
            for one in prepare(Plan(plan.benchmarks, plan.data, asking, limit=plan.limit)):
                rows.append(_row(one, continuation, peer, ours, options, device))
    finally:
        destroy_process_groups()
    return {
        "options": asdict(options),
        "hardware": device.name(),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
        "rows": rows,
    }


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    head = (
        f"{report['date']}, {report['hardware']}, torch {report['versions']['torch']}, "
        f"{report['options']['threads']} threads"
    )
    lines = [head, "", "| benchmark | choices as | requests | ours (requests/s) | hf (requests/s) "
             "| of batch | ratio | largest difference |",
             "|---|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for row in report["rows"]:
        lines.append(
            f"| {row['benchmark']} | {row['continuation']} | {row['requests']} | "
            f"{row['requests'] / row['ours_s']:,.0f} | {row['requests'] / row['hf_s']:,.0f} | "
            f"{row['hf_batch_size']} | {row['ratio']:.2f} | {row['largest_difference']:.1e} |"
        )
    return "\n".join(lines)


def _peer(options: EvaluateBenchmark, device: Device) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=options.hf, device=str(device.torch_device))


def _ours(options: EvaluateBenchmark, device: Device) -> Any:
    from megatron_biollm.evaluation.harness import HarnessModel
    from megatron_biollm.evaluation.live_model import LiveModel

    folder = candidates(Path(options.checkpoint))[0]
    with device.core_context():
        device.init_distributed(timeout_minutes=10)
        generator = build_generator(folder, load_model_config(folder), ParallelConfig(), device)
    return HarnessModel(LiveModel(generator, options.batch_tokens))


def _row(
    one: Prepared,
    continuation: str,
    peer: Any,
    ours: Any,
    options: EvaluateBenchmark,
    device: Device,
) -> dict[str, Any]:
    requests = _requests(one, peer)
    sides: dict[str, Score] = {
        str(size): partial(_by_peer, peer, size, requests) for size in options.batch_sizes
    }
    sides[OURS] = partial(ours.loglikelihood, requests)
    with device.core_context():
        found = sides[OURS]()
    theirs = sides[str(options.batch_sizes[0])]()
    times = {
        name: statistics.median(s) for name, s in in_turns(sides, options.repeats, device).items()
    }
    own = times.pop(OURS)
    best = min(times, key=times.__getitem__)
    return {
        "benchmark": one.benchmark.name,
        "continuation": continuation,
        "requests": len(requests),
        "ours_s": own,
        "hf_s": times[best],
        "hf_batch_size": int(best),
        "hf_all_s": times,
        "ratio": times[best] / own,
        "largest_difference": max(abs(a - b) for (a, _), (b, _) in zip(found, theirs, strict=True)),
    }


def _requests(one: Prepared, peer: Any) -> list[Any]:
    """The requests that lm-eval would make of a benchmark."""
    from megatron_biollm.evaluation.tasks import Asked, BenchmarkTask, room_of

    asking = one.runs[0].asking
    asked = Asked(one.benchmark, one.items, one.conventions, asking, one.examples(asking))
    task = BenchmarkTask(asked, room_of(peer))
    task.build_all_requests()
    return task.instances


def _by_peer(peer: Any, batch_size: int, requests: list[Any]) -> list[tuple[float, bool]]:
    peer.batch_size_per_gpu = batch_size
    return peer.loglikelihood(requests, disable_tqdm=True)
