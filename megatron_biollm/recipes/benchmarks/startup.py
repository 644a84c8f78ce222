"""How long a run takes from its launch to the end of its first step, beside a plain script.

Whole processes in turns, on the same model, data and machine: the tool that pretrains, and
`startup_peer.py`, which imports everything at its top and has everything made by megatron-core as
core's own example does. A third side is the tool with every deferral undone, and each of the
deferred modules is timed by itself, so that the list below is held to account.
"""

import importlib.util
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from megatron_biollm.config import UserError
from megatron_biollm.device.runtime import select_device
from megatron_biollm.log import Progress
from megatron_biollm.recipes.benchmarks.encode import children_cpu
from megatron_biollm.recipes.benchmarks.timed_training import OURS, TimedSteps, measured_on
from megatron_biollm.recipes.startup import STARTUP_FILE
from megatron_biollm.tokenizer.train import train_tokenizer

BAR = 0.5
CPU, COLLECTOR = "CPU of the whole process", "collection of garbage during imports"
PEER, FUSED, UNDONE = "plain script", "plain script, fusions on", "nothing deferred"
# What no run imports before its first step, unless it asks for what needs it.
DEFERRED = {
    "torch._dynamo": "torch's compiler: core's decorators ask for it, and torch's optimizers",
    "torch._inductor.compile_fx": "its code generation: core's decorators ask for it",
    "torch.fx.experimental.symbolic_shapes": "sympy: torch's DTensor asks for three names of it",
    "transformers.models.auto.tokenization_auto": "AutoTokenizer; `tokenizers` reads the same file",
    "megatron_biollm.recipes.evaluation_hook": "readers of benchmarks; runs that score some",
    "lxml.etree": "XML, for readers of benchmarks and of corpora",
    "jinja2": "chat templates",
    "matplotlib": "pictures",
}
_COLLECTING = ("collecting", "resting")
_ROOT = Path(__file__).parents[3]
_TOOL = _ROOT / "tools/pretrain.py"
_EAGER = """
import contextlib, runpy, sys
import megatron_biollm.imports
megatron_biollm.imports.quick_imports = contextlib.nullcontext
{imports}
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
_ONE_MODULE = """
import gc, importlib, sys, time
from megatron_biollm.recipes.run_config import RunConfig
from megatron_biollm.imports import quick_imports
start = time.perf_counter()
with quick_imports():
    if sys.argv[1] == "collecting":
        gc.enable()
    import megatron_biollm.recipes.pretrain
gc.disable()
if len(sys.argv) > 2:
    start = time.perf_counter()
    importlib.import_module(sys.argv[2])
print(time.perf_counter() - start)
"""


@dataclass(kw_only=True)
class StartupBenchmark(TimedSteps):
    """What to measure.

    Attributes:
        repeats: launches of each side, after an untimed one.
        processes: numbers of processes, each measured; 4 are TP2 x PP2, others data-parallel.
        device: auto, cpu or cuda.
        fusions: also the plain script with the fusions that Megatron-LM's has on unless told
            otherwise; core compiles them with torch.compile.
        scratch: folder for data and runs, which are removed; None takes the system's.

    Raises:
        UserError: numbers below 1.
    """

    repeats: int = 5
    processes: list[int] = field(default_factory=lambda: [1, 4])
    device: str = "auto"
    fusions: bool = False
    scratch: Optional[str] = None


@dataclass(frozen=True)
class Place:
    """What all sides are given.

    Attributes:
        folder: for everything that is written.
        options: of the benchmark.
    """

    folder: Path
    options: StartupBenchmark

    @property
    def run_dir(self) -> Path:
        """Of one launch; removed before the next."""
        return self.folder / "run"

    @property
    def corpus(self) -> Path:
        """Prefix of the data."""
        return self.folder / "corpus_text_document"


def benchmark_startup(options: StartupBenchmark) -> dict[str, Any]:
    """Times launches of all sides in turns, and the deferred modules.

    Returns:
        A row for each number of processes (`ours` and `peer` in seconds), the phases of every side,
        milliseconds of each deferred module, and what they were measured on.

    Raises:
        UserError: a launch failed.
    """
    device = select_device(options.device)
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="startup-benchmark-") as folder:
        place = Place(Path(folder), options)
        _write_inputs(place)
        sides = {count: _launch_in_turns(place, count) for count in options.processes}
        modules = _time_modules(min(options.repeats, 3))
    report = {
        "rows": [_row(count, samples) for count, samples in sides.items()],
        "sides": [
            _side(count, name, samples)
            for count, launches in sides.items()
            for name, samples in launches.items()
        ],
        "deferred": modules,
        **measured_on(options, device),
    }
    del report["options"]["scratch"]
    return report


def _write_inputs(place: Place) -> None:
    """A tokenizer, a corpus of invented words, and the YAML of the run."""
    rng, folder = random.Random(0), place.folder
    syllables = [a + b for a in "bcdfglmnprst" for b in "aeiou"]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(5000)]
    texts = [" ".join(rng.choices(words, k=200)) for _ in range(1000)]
    train_tokenizer(texts, place.options.model.vocab_size, folder / "tokenizer")
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    (folder / "texts.jsonl").write_text("".join(lines), encoding="utf-8")
    _run([
        sys.executable, str(_ROOT / "tools/preprocess_data.py"), "--append-eod",
        "--input", str(folder / "texts.jsonl"), "--output-prefix", str(folder / "corpus"),
        "--tokenizer-model", str(folder / "tokenizer"), "--tokenizer-type", "HuggingFaceTokenizer",
    ])  # fmt: skip


def _launch_in_turns(place: Place, count: int) -> dict[str, list[dict[str, float]]]:
    """Phases of every launch of every side, which take turns; those of a first round are left out,
    in which files come into memory and indices are built."""
    commands = _commands(place, count)
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    rounds = range(place.options.repeats + 1)
    for repeat in Progress(len(rounds), f"{count} processes", "round").track(rounds):
        for name, command in commands.items():
            shutil.rmtree(place.run_dir, ignore_errors=True)
            (place.run_dir / "logs").mkdir(parents=True)
            before = children_cpu()
            _run(command)
            if repeat:
                told = (place.run_dir / "logs" / STARTUP_FILE).read_text(encoding="utf-8")
                samples[name].append(json.loads(told) | {CPU: children_cpu() - before})
    return samples


def _commands(place: Place, count: int) -> dict[str, list[str]]:
    python = [sys.executable]
    if count > 1:
        python += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    ours = [str(_TOOL), *_our_arguments(place, count)]
    commands = {OURS: [*python, *ours], PEER: [*python, *_peer_arguments(place, count, False)]}
    if count == 1:
        eager = _EAGER.format(imports="\n".join(f"import {name}" for name in _present()))
        commands[UNDONE] = [*python, "-c", eager, *ours]
        if place.options.fusions:
            commands[FUSED] = [*python, *_peer_arguments(place, count, True)]
    return commands


def _layout(count: int) -> dict[str, int]:
    degree = 2 if count == 4 else 1
    return {"tensor_model_parallel_size": degree, "pipeline_model_parallel_size": degree}


def _batches(place: Place, count: int) -> dict[str, int]:
    """One micro-batch for each data-parallel rank."""
    return {"micro_batch_size": 8, "global_batch_size": 8 * (1 if count == 4 else count)}


def _our_arguments(place: Place, count: int) -> Iterator[str]:
    model, folder = place.options.model, place.folder
    names = ("num_layers", "hidden_size", "num_attention_heads", "num_query_groups")
    for name in (*names, "ffn_hidden_size", "seq_length"):
        yield f"model.{name}={getattr(model, name)}"
    yield from (f"parallel.{name}={value}" for name, value in _layout(count).items())
    yield from (f"training.{name}={value}" for name, value in _batches(place, count).items())
    yield f"run_dir={place.run_dir}"
    yield f"data.data_path=[{place.corpus}]"
    yield "data.num_workers=0"
    yield f"tokenizer.tokenizer_model={folder / 'tokenizer'}"
    yield f"training.device={place.options.device}"
    # Of a long run the first step is looked at; no checkpoint is written after it.
    yield from ("training.train_iters=300", "training.exit_interval=1")


def _peer_arguments(place: Place, count: int, fusions: bool) -> list[str]:
    model = place.options.model
    values = {
        **{name: value for name, value in vars(model).items() if isinstance(value, int)},
        **_layout(count),
        **_batches(place, count),
        "padded_vocab_size": model.padded_vocab_size,
        "train_iters": 300,
        "fusions": fusions,
        "device": place.options.device,
        "run_dir": str(place.run_dir),
        "cache": str(place.folder / "cache"),
        "data_path": [str(place.corpus)],
        "tokenizer_model": str(place.folder / "tokenizer"),
    }
    path = place.folder / f"plain_{count}_{fusions}.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return ["-m", "megatron_biollm.recipes.benchmarks.startup_peer", str(path)]


def _present() -> list[str]:
    """Those of the deferred modules that are installed."""
    return [name for name in DEFERRED if importlib.util.find_spec(name.split(".")[0])]


def _time_modules(repeats: int) -> list[dict[str, Any]]:
    """What each deferred module would add to a start, after all that a start does import."""
    arguments = {name: ("", name) for name in _present()} | {m: (m,) for m in _COLLECTING}
    samples: dict[str, list[float]] = {name: [] for name in arguments}
    for _ in Progress(repeats, "deferred modules", "round").track(range(repeats)):
        for name, given in arguments.items():
            said = _run([sys.executable, "-c", _ONE_MODULE, *given])
            samples[name].append(1e3 * float(said.split()[-1]))
    ms = {name: statistics.median(found) for name, found in samples.items()}
    collecting, resting = (ms.pop(name) for name in _COLLECTING)
    rows = [{"name": name, "ms": ms[name], "why": DEFERRED[name]} for name in ms]
    return [*rows, {"name": COLLECTOR, "ms": collecting - resting, "why": "among what stays"}]


def _run(command: list[str]) -> str:
    """Standard output of a process.

    Raises:
        UserError: it failed.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        shown = " ".join(part for part in command if "\n" not in part)
        raise UserError(
            f"{shown} ended with exit status {done.returncode}: {done.stderr[-800:].strip()}; run "
            f"it by itself, and mend what it says"
        )
    return done.stdout


def _row(count: int, samples: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    ours, peer = (_median(samples[name], "total") for name in (OURS, PEER))
    kind = "1 process" if count == 1 else f"{count} processes"
    return {
        "name": f"launch to first step, {kind}",
        "ours": ours,
        "peer": peer,
        "ratio": ours / peer,
        "bar": BAR,
        "met": ours / peer <= BAR,
    }


def _side(count: int, name: str, samples: list[dict[str, float]]) -> dict[str, Any]:
    totals = [sample["total"] for sample in samples]
    return {
        "processes": count,
        "name": name,
        "fastest_s": min(totals),
        "slowest_s": max(totals),
        "phases": {phase: _median(samples, phase) for phase in samples[0]},
    }


def _median(samples: list[dict[str, float]], phase: str) -> float:
    return statistics.median(sample[phase] for sample in samples)
