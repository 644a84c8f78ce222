"""One process that builds the sample index of a blend, or opens it, and tells what that took.

    python -m megatron_biollm.recipes.benchmarks.data_opening SIDE WHAT JOB.json

SIDE: ours, or core (`data_peer.py`). WHAT: `build` has the index on disk, `open` reads the first
sample with the index there. Prints seconds and memory as JSON.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass
class Job:
    """A blend of corpora as one run takes it. samples: of train and valid. cache: its index."""

    prefixes: list[str]
    weights: list[str]
    split: str
    samples: list[int]
    seq_length: int
    seed: int
    cache: str

    @classmethod
    def read(cls, path: str) -> "Job":
        return cls(**json.loads(Path(path).read_text(encoding="utf-8")))

    def write(self, path: Path) -> str:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return str(path)

    def data(self) -> Any:
        """The data section of a run's config."""
        from megatron_biollm.data.config import DataConfig

        pairs = zip(self.weights, self.prefixes, strict=True)
        path = [text for pair in pairs for text in pair]
        return DataConfig(data_path=path, split=self.split, data_cache_path=self.cache)


def build_ours(job: Job) -> None:
    from megatron_biollm.data.planned import ensure_index

    yield
    ensure_index(job.data(), job.seq_length, job.seed, job.samples[0])


def open_ours(job: Job) -> None:
    from megatron_biollm.data.stream import build_datasets

    yield
    build_datasets(job.data(), job.seq_length, job.seed, eod=0).train[0]


def build_core(job: Job) -> None:
    from megatron_biollm.recipes.benchmarks.data_peer import open_as_core

    yield
    weights = [float(weight) for weight in job.weights]
    samples = [*job.samples, 0]
    open_as_core(
        job.prefixes, weights, job.split, samples, job.seq_length, job.seed, job.cache
    )[0][0]  # fmt: skip


STEPS = {
    ("ours", "build"): build_ours,
    ("ours", "open"): open_ours,
    ("core", "build"): build_core,
    ("core", "open"): build_core,
}


def memory() -> dict[str, int]:
    """Bytes of this process: what it holds (anonymous), and with the mapped pages of files."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    found = {line.split(":")[0]: line.split(":")[1] for line in lines if line.endswith("kB")}
    size = {name: int(text.removesuffix("kB")) * 1024 for name, text in found.items()}
    return {"anonymous": size["RssAnon"], "resident": size["VmRSS"]}


def main() -> None:
    side, what, path = sys.argv[1:]
    step = STEPS[side, what](Job.read(path))
    start = time.perf_counter()
    next(step)
    imported, held = time.perf_counter(), memory()
    next(step, None)
    report = {
        "import_s": imported - start,
        "work_s": time.perf_counter() - imported,
        "imports_anonymous": held["anonymous"],
        "imports_resident": held["resident"],
        "open_files": len(list(Path("/proc/self/fd").iterdir())),
        "maps": len(Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
