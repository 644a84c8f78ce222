"""One process that reads the batches of a run, as fast as it can or as a training step asks.

    python -m megatron_biollm.recipes.benchmarks.data_loading JOB.json

Prints as JSON what `Loading` describes.
"""

import itertools
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megatron_biollm.recipes.benchmarks.data_opening import Job


@dataclass
class Loading:
    """A rank that reads.

    Attributes:
        job: its blend.
        micro_batch_size, num_microbatches: samples of a forward pass, passes of a step.
        num_workers: processes that read ahead.
        steps: that are timed, after the first.
        step_s: seconds between two steps, in which nothing else is computed; 0 takes batch after
            batch.
    """

    job: dict[str, Any]
    micro_batch_size: int
    num_microbatches: int
    num_workers: int
    steps: int
    step_s: float

    @classmethod
    def read(cls, path: str) -> "Loading":
        return cls(**json.loads(Path(path).read_text(encoding="utf-8")))

    def write(self, path: Path) -> str:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return str(path)

    def batches(self) -> Iterator[Any]:
        from megatron_biollm.data.sampler import micro_batches
        from megatron_biollm.data.stream import build_datasets

        job = Job(**self.job)
        train = build_datasets(job.data(), job.seq_length, job.seed, eod=0).train
        size, passes = self.micro_batch_size, self.num_microbatches
        return micro_batches(train, 0, size, 0, 1, self.num_workers, ahead=passes)

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.micro_batch_size * self.num_microbatches * self.job["seq_length"]


def measure(loading: Loading) -> dict[str, float]:
    """Waits of the steps in seconds, and the rate: tokens a second of the steps after the first.

    first_wait_s: until the first step had its batches, opening included. cpu_s: of this process
    and its workers for each of the other steps.
    """
    start = time.perf_counter()
    batches = loading.batches()
    _take(batches, loading)
    first, cpu = time.perf_counter() - start, _cpu_seconds()
    waits, begin = [], time.perf_counter()
    for number in range(loading.steps):
        time.sleep(max(0.0, begin + (number + 1) * loading.step_s - time.perf_counter()))
        waits.append(_take(batches, loading))
    seconds = time.perf_counter() - begin
    used = _cpu_seconds() - cpu
    waits.sort()
    return {
        "first_wait_s": first,
        "median_wait_s": statistics.median(waits),
        "p99_wait_s": waits[int(0.99 * (len(waits) - 1) + 0.5)],
        "max_wait_s": waits[-1],
        "waited_share": sum(waits) / seconds,
        "tokens_per_second": loading.tokens * loading.steps / seconds,
        "cpu_s_per_step": used / loading.steps,
    }


def _take(batches: Iterator[Any], loading: Loading) -> float:
    start = time.perf_counter()
    for batch in itertools.islice(batches, loading.num_microbatches):
        assert batch["tokens"].shape[0] == loading.micro_batch_size
    return time.perf_counter() - start


def _cpu_seconds() -> float:
    """Of this process and of those it has started, which are still at work."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    ticks = 0
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text(encoding="utf-8").split():
            fields = Path(f"/proc/{child}/stat").read_text(encoding="utf-8").rpartition(")")[2]
            ticks += sum(int(text) for text in fields.split()[11:13])
    return used.ru_utime + used.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    print(json.dumps(measure(Loading.read(sys.argv[1]))))
