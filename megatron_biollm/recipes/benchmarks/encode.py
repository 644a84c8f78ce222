"""How fast a corpus is encoded here, beside what people would use instead.

Every side is a whole process, from its start to its finished files, on the same text and the same
tokenizer, in turns, so that whatever else the machine does meets all of them. The text is real
text, repeated up to a size.
"""

import contextlib
import hashlib
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Optional

import psutil

from megatron_biollm.config import UserError
from megatron_biollm.data.layout import read_layout
from megatron_biollm.log import Progress
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer

OURS, SLOW, FAST = "megatron_biollm", "preprocess_data.py", "preprocess_data_fast.py"
OURS_HF = "megatron_biollm, Hugging Face files"
DATATROVE, SENTENCEPIECE = "datatrove", "sentencepiece"
_TOOL = Path(__file__).parents[3] / "tools/preprocess_data.py"
_POLL_S = 0.05
_PACKAGES = ("gigatoken", "sentencepiece", "tokenizers", "orjson", "numpy", "datatrove")


@dataclass
class EncodeBenchmark:
    """What to measure.

    Attributes:
        input: JSON lines with real text under "text".
        tokenizer_model: SentencePiece .model file; Hugging Face files are made of it.
        megatron_lm: folder of a Megatron-LM checkout, for its two scripts.
        python: interpreter that can run them; this one if None.
        sizes_mb: sizes of the text.
        workers: processes of each side (threads, of `sentencepiece`).
        repeats: runs of each side and size.
        peers: names of sides to leave in; all if empty.
        scratch: folder for text and outputs, which are removed; the system's if None.

    Raises:
        UserError: a file that is not there, numbers below 1, unknown peers.
    """

    input: str
    tokenizer_model: str
    megatron_lm: Optional[str] = None
    python: Optional[str] = None
    sizes_mb: list[int] = field(default_factory=lambda: [100, 1000])
    workers: int = 1
    repeats: int = 3
    peers: list[str] = field(default_factory=list)
    scratch: Optional[str] = None

    def __post_init__(self) -> None:
        for name in ("input", "tokenizer_model"):
            if not Path(getattr(self, name)).is_file():
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)} is no file")
        for number in (self.workers, self.repeats, *self.sizes_mb):
            if number < 1:
                raise UserError(f"{number} must be at least 1: sizes, workers and repeats count")
        known = (OURS, OURS_HF, SLOW, FAST, DATATROVE, SENTENCEPIECE)
        if unknown := set(self.peers) - set(known):
            raise UserError(f"unknown peer {', '.join(unknown)}; there are: {'; '.join(known)}")


def _shown(options: EncodeBenchmark) -> dict[str, Any]:
    """The options without what only this machine knows."""
    left_out = ("scratch", "python", "megatron_lm")
    names = {name: Path(getattr(options, name)).name for name in ("input", "tokenizer_model")}
    return {k: v for k, v in asdict(options).items() if k not in left_out} | names


@dataclass
class Run:
    """One process and its children: seconds, processor time, and the most memory held, in MB."""

    seconds: float
    cpu_seconds: float
    peak_rss_mb: float


def benchmark_encoding(options: EncodeBenchmark) -> dict[str, Any]:
    """Times every side on every size.

    Returns:
        A row for each size and side, and what they were measured on.

    Raises:
        UserError: a side failed; its last words are in the message.
    """
    rows = []
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="encode-benchmark-") as folder:
        model = TokenizerConfig("SentencePieceTokenizer", options.tokenizer_model)
        build_tokenizer(model).save_pretrained(Path(folder) / "tokenizer")
        for size in options.sizes_mb:
            text = Path(folder) / f"{size}.jsonl"
            rows += _measure(options, size, repeat_text(options.input, text, size, options.workers))
            for path in text.parent.glob(f"{text.name}*"):
                path.unlink()
    return {
        "rows": rows,
        "options": _shown(options),
        "hardware": f"{processor()}, {os.cpu_count()} cores",
        "versions": _versions(),
        "date": time.strftime("%Y-%m-%d"),
    }


def repeat_text(source: str, target: Path, size_mb: int, parts: int) -> Path:
    """Writes `source` again and again up to a size in MB; and dealt to TARGET.0, TARGET.1, ..."""
    lines = Path(source).read_bytes().splitlines(keepends=True)
    if not lines:
        raise UserError(f"--input {source} is empty; give JSON lines with text")
    lines[-1] = lines[-1].rstrip(b"\n") + b"\n"
    written, number = 0, 0
    files = [target.with_name(f"{target.name}.{part}").open("wb") for part in range(parts)]
    with target.open("wb") as whole:
        while written < size_mb * 1_000_000:
            line = lines[number % len(lines)]
            whole.write(line)
            files[number % parts].write(line)
            written, number = written + len(line), number + 1
    for file in files:
        file.close()
    return target


def commands(options: EncodeBenchmark, source: Path, output: Path) -> dict[str, list[str]]:
    """The command of each side that can be run."""
    hugging_face = str(output.parent / "tokenizer")
    common = ["--input", str(source), "--output-prefix", str(output), "--append-eod"]
    workers = ["--workers", str(options.workers)]
    by_sentencepiece = [
        *("--tokenizer-type", "SentencePieceTokenizer"),
        *("--tokenizer-model", options.tokenizer_model),
    ]
    by_hugging_face = [
        *("--tokenizer-type", "HuggingFaceTokenizer"),
        *("--tokenizer-model", hugging_face),
    ]
    own = [sys.executable, str(_TOOL), *common, *workers, "--log-interval", "1000000000"]
    peer = [sys.executable, "-m", "megatron_biollm.recipes.benchmarks.encode_peers"]
    ends = [str(options.workers), str(source), str(output)]
    made = {
        OURS: [*own, *by_sentencepiece],
        OURS_HF: [*own, *by_hugging_face],
        DATATROVE: [*peer, DATATROVE, f"{hugging_face}/tokenizer.json", *ends],
        SENTENCEPIECE: [*peer, SENTENCEPIECE, options.tokenizer_model, *ends],
    }
    if options.megatron_lm:
        script = [options.python or sys.executable, f"{options.megatron_lm}/tools/{{}}"]
        slow, fast = ([part.format(name) for part in script] for name in (SLOW, FAST))
        made[SLOW] = [*slow, *common, *workers, *by_sentencepiece]
        made[FAST] = [*fast, *common, *by_hugging_face, "--use-gigatoken"]
    return {name: c for name, c in made.items() if not options.peers or name in options.peers}


def _measure(options: EncodeBenchmark, size: int, source: Path) -> list[dict[str, Any]]:
    output = source.parent / "out"
    sides = commands(options, source, output)
    runs: dict[str, list[Run]] = {name: [] for name in sides}
    written: dict[str, dict[str, Any]] = {}
    rounds = [name for _ in range(options.repeats) for name in sides]
    for name in Progress(len(rounds), f"{size} MB", "runs").track(rounds):
        for path in source.parent.glob(f"{output.name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        runs[name].append(run_process(name, sides[name], options.megatron_lm))
        written[name] = _written(f"{output}_text_document")
    reference = written.get(SLOW) or written.get(FAST) or {}
    tokens = next((found["tokens"] for found in written.values() if found), 0)
    return [
        _row(name, size, source.stat().st_size, tokens, runs[name])
        | {"same_bytes": written[name] == reference if written[name] and reference else None}
        for name in sides
    ]


def run_process(name: str, command: list[str], megatron_lm: Optional[str]) -> Run:
    """Runs a command to its end and watches the memory of it and of all below it.

    Raises:
        UserError: it failed.
    """
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    if megatron_lm and name in (SLOW, FAST):
        environment["PYTHONPATH"] = megatron_lm
    start, before = time.perf_counter(), children_cpu()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        watch = _MemoryWatch(process.pid)
        said = process.communicate()[0].decode("utf-8", "replace")
        seconds = time.perf_counter() - start
    if process.returncode:
        raise UserError(
            f"{name} ended with exit status {process.returncode}: {said[-600:].strip()}; mend it, "
            "or leave it out by naming the others with --peers"
        )
    return Run(seconds, children_cpu() - before, watch.peak() / 1e6)


def children_cpu() -> float:
    """Seconds of the processors that ended children of this process have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class _MemoryWatch:
    """The largest sum of the resident memory of a process and all below it, in bytes."""

    def __init__(self, pid: int):
        self.process, self.largest, self.over = psutil.Process(pid), 0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def peak(self) -> int:
        self.over.set()
        self.thread.join()
        return self.largest

    def _watch(self) -> None:
        while not self.over.wait(_POLL_S):
            with contextlib.suppress(psutil.Error):
                family = [self.process, *self.process.children(recursive=True)]
                self.largest = max(self.largest, sum(map(_resident, family)))


def _resident(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return process.memory_info().rss
    return 0


def _written(prefix: str) -> dict[str, Any]:
    """Digests and tokens of a corpus; empty where a side writes none of that name."""
    if not Path(f"{prefix}.idx").is_file():
        return {}
    found: dict[str, Any] = {"tokens": read_layout(prefix).tokens}
    for end in ("bin", "idx"):
        with Path(f"{prefix}.{end}").open("rb") as file:
            found[end] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _row(name: str, size: int, source_bytes: int, tokens: int, runs: list[Run]) -> dict[str, Any]:
    seconds = [run.seconds for run in runs]
    median = statistics.median(seconds)
    return {
        "size_mb": size,
        "name": name,
        "seconds": median,
        "fastest_s": min(seconds),
        "slowest_s": max(seconds),
        "cpu_s": statistics.median(run.cpu_seconds for run in runs),
        "mb_per_second": source_bytes / 1e6 / median,
        "million_tokens_per_second": tokens / 1e6 / median,
        "peak_rss_mb": max(run.peak_rss_mb for run in runs),
    }


def processor() -> str:
    """Name of the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def table(report: dict[str, Any]) -> str:
    """The report as Markdown; "times" is how much longer a side takes than ours."""
    options = report["options"]
    lines = [
        f"{report['date']}, {report['hardware']}, {options['workers']} workers, "
        f"median of {options['repeats']}, whole processes",
        "",
        "| MB | | s | fastest | slowest | CPU s | MB/s | Mtok/s | MB held | times | same bytes |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    ours = {row["size_mb"]: row["seconds"] for row in report["rows"] if row["name"] == OURS}
    for row in report["rows"]:
        times = row["seconds"] / ours[row["size_mb"]] if row["size_mb"] in ours else float("nan")
        same = {True: "yes", False: "NO", None: ""}[row["same_bytes"]]
        lines.append(
            f"| {row['size_mb']} | {row['name']} | {row['seconds']:.2f} | {row['fastest_s']:.2f} | "
            f"{row['slowest_s']:.2f} | {row['cpu_s']:.2f} | {row['mb_per_second']:.1f} | "
            f"{row['million_tokens_per_second']:.2f} | {row['peak_rss_mb']:.0f} | {times:.2f} | "
            f"{same} |"
        )
    return "\n".join(lines)
