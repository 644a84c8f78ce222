"""What a run says, and where: console lines, rank files, progress, metrics, a tool's exit status.

The logger decides which ranks speak: rank 0 shows every line on the console, the other ranks only
warnings and errors, and every rank writes all of its lines to its own file under ``run_dir/logs``.
Console output and progress go to stderr, so that stdout holds nothing but a tool's results.
"""

import contextlib
import logging
import math
import os
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, TextIO

from tqdm import tqdm

from megatron_biollm.atomic import disk_errors
from megatron_biollm.config import UserError, option
from megatron_biollm.rows import RowFile, cut_rows_after

_PACKAGE = "megatron_biollm"
# What a rank that has nothing to say waits before it ends, so that the one that has can say it.
_LAST_WORDS_S = 2.0
# Starts of messages: optional kernels that are absent, and core's use of what torch renames.
_KNOWN_WARNINGS = (
    "Transformer Engine and Apex are not installed",
    "`load_state_dict` is deprecated and will be removed",
    "Please use DTensor instead and we are deprecating ShardedTensor",
    "Apex is not installed",
    "full scope is deprecated",
    "The .grad attribute of a Tensor that is not a leaf",
    "`torch.distributed.reduce_scatter_tensor` is deprecated",
    "`torch.distributed.all_gather_into_tensor` is deprecated",
)


def get_logger(name: str) -> logging.Logger:
    """The logger for ``name``, usually the caller's ``__name__``, below the package's logger."""
    if name == _PACKAGE or name.startswith(_PACKAGE + "."):
        return logging.getLogger(name)
    return logging.getLogger(f"{_PACKAGE}.{name}")


def setup_logging(rank: int = 0, world_size: int = 1, log_dir: Path | str | None = None) -> None:
    """Opens this rank's outputs, replacing those of an earlier call.

    rank, world_size: this process among those of the run.
    log_dir: folder for ``rank_00000.log``, appended to when a run resumes; None writes no file.
    """
    close_logging()
    logger = logging.getLogger(_PACKAGE)
    logger.setLevel(logging.INFO)
    # A library that configures the root logger must not make every line appear twice.
    logger.propagate = False
    console = _Console(logging.INFO if rank == 0 else logging.WARNING)
    console.setFormatter(_LineFormatter(rank if world_size > 1 else None))
    console.addFilter(lambda record: not getattr(record, "file_only", False))
    logger.addHandler(console)
    if log_dir is not None:
        Path(log_dir).mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(Path(log_dir) / f"rank_{rank:05d}.log", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(file)


def close_logging() -> None:
    """Closes what ``setup_logging`` opened; later lines go to Python's default logging."""
    logger = logging.getLogger(_PACKAGE)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True


class _Console(logging.Handler):
    """Lines on stderr that do not tear a progress bar apart."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


class _LineFormatter(logging.Formatter):
    """``[12:30:59] message``; other ranks than 0 are named, and so is a level above INFO."""

    def __init__(self, rank: int | None):
        super().__init__(datefmt="%H:%M:%S")
        self.rank = rank

    def format(self, record: logging.LogRecord) -> str:
        who = f" rank {self.rank}" if self.rank else ""
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        text = f"[{self.formatTime(record, self.datefmt)}{who}] {level}{record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def run_tool(main: Callable[[], int | None]) -> int:
    """Runs a tool and gives its exit status: ``sys.exit(run_tool(main))``.

    0 or what ``main`` returns; 2 for a UserError, shown as one ``error:`` message; 130 when
    interrupted from the keyboard; 1 for anything else, with its traceback.
    """
    _hush_known_warnings()
    try:
        return main() or 0
    except UserError as error:
        if _speaks_of_errors():
            print(f"error: {_named_rank()}{error}", file=sys.stderr)
        else:  # torchrun ends all ranks once one has ended, and the one that speaks may be slower
            time.sleep(_LAST_WORDS_S)
        _to_rank_file(str(error))
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception:
        traceback.print_exc()
        _to_rank_file(traceback.format_exc())
        return 1


def _hush_known_warnings() -> None:
    """Silences what core and torch say in every process and a user cannot act on. A run names its
    layers and kernels itself. Processes started by the tool are quiet too."""
    for message in _KNOWN_WARNINGS:
        warnings.filterwarnings("ignore", message=re.escape(message))
    inherited = os.environ.get("PYTHONWARNINGS", "")
    missing = [f"ignore:{m}" for m in _KNOWN_WARNINGS if m not in inherited]
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [inherited, *missing]))


def _to_rank_file(text: str) -> None:
    """Keeps the last words of a rank in its own file; the console has had them already."""
    logger = logging.getLogger(_PACKAGE)
    if logger.handlers:
        logger.error(text, extra={"file_only": True})


def _speaks_of_errors() -> bool:
    """Until the ranks are connected all of them fail alike, so one process per machine speaks."""
    return _ranks_are_connected() or os.environ.get("LOCAL_RANK", "0") == "0"


def _named_rank() -> str:
    return f"rank {os.environ['RANK']}: " if _ranks_are_connected() and "RANK" in os.environ else ""


def _ranks_are_connected() -> bool:
    # Asked without importing torch, which would add seconds to every small tool's error message.
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    return bool(distributed and distributed.is_available() and distributed.is_initialized())


class Progress:
    """How far a long task has come, with its estimated time left, on stderr.

    On a terminal it is a tqdm bar. Elsewhere (a log file, CI) it is one line every
    ``every_s`` seconds and one at the end, so that no log fills with bars.

    total: number of units, or None when unknown. initial: units done by an earlier run.
    unit: what is counted; "B" counts bytes and shows kB, MB, GB.
    enabled: False says nothing at all (ranks other than the one that speaks).
    """

    def __init__(
        self,
        total: int | None,
        description: str,
        unit: str = "it",
        initial: int = 0,
        enabled: bool = True,
        every_s: float = 30.0,
        stream: TextIO | None = None,
    ):
        self.stream = stream or sys.stderr
        self.on_terminal = self.stream.isatty()
        self.enabled, self.every_s = enabled, every_s
        self.said_at, self.said_n = time.monotonic(), None
        self.bar = tqdm(
            total=total,
            desc=description,
            unit=unit if unit == "B" else f" {unit}",
            initial=initial,
            file=self.stream if self.on_terminal else _Nowhere(),
            disable=not enabled,
            dynamic_ncols=self.on_terminal,
            unit_scale=unit == "B",
            mininterval=0.2,
        )

    def update(self, n: int = 1, **shown: Any) -> None:
        """Counts ``n`` more units; ``shown`` values stand at the end of the line."""
        self.bar.update(n)
        if not self.enabled:
            return
        if shown:
            self.bar.set_postfix(shown, refresh=False)
        if not self.on_terminal and time.monotonic() - self.said_at >= self.every_s:
            self._say()

    def track(self, items: Iterable) -> Iterator:
        """Yields ``items``, counting each one after its turn, and closes at the end."""
        with self:
            for item in items:
                yield item
                self.update()

    def close(self) -> None:
        if self.enabled and not self.on_terminal and self.said_n != self.bar.n:
            self._say()
        self.enabled = False
        self.bar.close()

    def _say(self) -> None:
        print(str(self.bar).strip(), file=self.stream, flush=True)
        self.said_at, self.said_n = time.monotonic(), self.bar.n

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Nowhere:
    """A stream for a bar that only counts."""

    encoding = "utf-8"

    def write(self, text: str) -> None:
        pass

    def flush(self) -> None:
        pass


@dataclass
class LoggingConfig:
    """Where the numbers of a run go besides ``metrics.jsonl``, which is always written."""

    log_interval: int = option(1, "steps between two lines on the console and in metrics.jsonl")
    tensorboard: bool = option(True, "write run_dir/tensorboard, where tensorboard is installed")
    wandb_project: Optional[str] = option(None, "Weights & Biases project; none sends nothing")
    wandb_name: Optional[str] = option(None, "name of the W&B run; the run folder's name if none")
    peak_tflops: Optional[float] = option(
        None, "TFLOP/s of one device at best, for MFU; known GPUs and the CPU need none"
    )

    def __post_init__(self) -> None:
        if self.log_interval < 1:
            raise UserError(
                f"logging.log_interval is {self.log_interval}, but it counts steps between two "
                "lines; give 1 or more"
            )


class MetricsLogger:
    """Writes one row of numbers per logged step to every sink of the run.

    ``run_dir/metrics.jsonl`` gets each row at once, so a killed run loses none. When a run
    resumes, rows of steps after ``resume_step`` are cut first, so that no step appears twice.
    Only rank 0 writes: on the others ``log`` does nothing.

    Raises UserError where W&B was asked for and is not installed.
    """

    def __init__(
        self, run_dir: Path | str, config: LoggingConfig, resume_step: int = 0, rank: int = 0
    ):
        self.path = Path(run_dir) / "metrics.jsonl"
        self.rows: RowFile | None = None
        self.last_row: dict | None = None
        self.sinks: list[Callable[[dict], None]] = []
        self.closers: list[Callable[[], None]] = []
        if rank != 0:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if config.wandb_project is not None:
            self._open_wandb(config)
        with disk_errors(self.path, "free some disk space and start again"):
            self.last_row = cut_rows_after(self.path, resume_step)
            self.rows = RowFile(self.path)
        if config.tensorboard:
            self._open_tensorboard(resume_step)

    def log(self, row: Mapping[str, Any]) -> None:
        """Writes ``row``, which holds ``step``; numbers that are not finite become null.

        A full disk ends no run: the rows wait in memory, and the log says so.
        """
        if self.rows is None:
            return
        plain = {key: _plain(value) for key, value in row.items()}
        waited = len(self.rows.waiting)
        error = self.rows.append(plain)
        if error is not None and not waited:
            get_logger(__name__).warning(
                "%s cannot be written (%s): rows from step %s on wait in memory; free some disk "
                "space before the run ends", self.path, error.strerror, row["step"]
            )  # fmt: skip
        if error is None and waited:
            get_logger(__name__).info("%s: %d rows that waited are written", self.path, waited)
        self._to_sinks(plain)

    def _to_sinks(self, row: dict) -> None:
        for sink in list(self.sinks):
            try:
                sink(row)
            except OSError as error:
                get_logger(__name__).warning(
                    "TensorBoard or W&B cannot write (%s) and get no more rows until the next "
                    "start; metrics.jsonl has them all", error
                )  # fmt: skip
                self.sinks.remove(sink)

    def lacks(self, step: int, key: str) -> bool:
        """Whether the row of ``step`` is the last one of an earlier start and holds no ``key``,
        which was to come later; False on ranks other than 0."""
        row = self.last_row or {}
        return row.get("step") == step and key in row and row[key] is None

    def complete(self, step: int, values: Mapping[str, Any]) -> None:
        """Adds what ``lacks`` found to be absent to the row of ``step``."""
        if self.rows is None:
            return
        row = {**self.last_row, **values}
        self.rows.close()
        with disk_errors(self.path, "free some disk space and start again"):
            cut_rows_after(self.path, step - 1, then=row)
            self.rows = RowFile(self.path)
        self._to_sinks(row)

    def close(self) -> None:
        """Closes every sink.

        Raises UserError if rows still wait for room on the disk; they are lost.
        """
        for close in self.closers:
            with contextlib.suppress(OSError):
                close()
        rows, self.rows, self.sinks, self.closers = self.rows, None, [], []
        if rows is None:
            return
        error, lost = rows.flush(), [row["step"] for row in rows.waiting]
        rows.close()
        if error is not None:
            raise UserError(
                f"{self.path} cannot be written ({error.strerror}): the rows of steps {lost[0]} to "
                f"{lost[-1]} are lost; free some disk space"
            )

    def _open_tensorboard(self, resume_step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            get_logger(__name__).warning(
                "tensorboard is not installed, so run_dir/tensorboard is not written; "
                "`pip install tensorboard` or set logging.tensorboard=false"
            )
            return
        writer = SummaryWriter(str(self.path.parent / "tensorboard"), purge_step=resume_step + 1)

        def write(row: dict) -> None:
            for key, value in _numbers(row).items():
                writer.add_scalar(key, value, row["step"])

        self.sinks.append(write)
        self.closers.append(writer.close)

    def _open_wandb(self, config: LoggingConfig) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UserError(
                f"logging.wandb_project is {config.wandb_project!r}, but wandb is not installed; "
                "`pip install wandb` or leave logging.wandb_project empty"
            ) from error
        name = config.wandb_name or self.path.parent.resolve().name
        run = wandb.init(project=config.wandb_project, name=name, dir=str(self.path.parent))
        self.sinks.append(lambda row: run.log(_numbers(row), step=row["step"]))
        self.closers.append(run.finish)


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: value
        for key, value in row.items()
        if key != "step" and isinstance(value, int | float) and not isinstance(value, bool)
    }


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
