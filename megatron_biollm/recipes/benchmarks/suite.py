"""A suite of benchmarks from one command: each row a process of its own, its report a JSON file,
and one Markdown page that shows them all, the rows that are still empty too.

Rows that this hardware has measured are kept, so that a suite can be run in parts. A rehearsal
(`tiny`) runs every command to its end with small sizes, and writes elsewhere.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from megatron_biollm.atomic import whole_file, write_json
from megatron_biollm.config import UserError
from megatron_biollm.device.runtime import Device, select_device
from megatron_biollm.log import Progress, get_logger
from megatron_biollm.recipes.benchmarks.bars import bars_table
from megatron_biollm.recipes.benchmarks.suites import INTRODUCTIONS, SUITES, Entry

logger = get_logger(__name__)
REHEARSED = Path(tempfile.gettempdir()) / "benchmarks_rehearsed"
OUTPUT = Path("docs") / "benchmarks"
PROGRAM = "tools/benchmark.py"


@dataclass(frozen=True)
class SuiteOptions:
    """How to run a suite.

    Attributes:
        suite: gpu, around or cpu.
        output: folder of the JSON files and of the page; None is docs/benchmarks, or a folder of
            the system's temporary files for a rehearsal.
        device: cpu, cuda or auto.
        tiny: a rehearsal with small sizes, on any device.
        again: measure rows anew that are there already, as a rehearsal always does.
        only: names of rows; all if empty.
        budget_s: seconds for everything; a row that may not fit is left for the next run.

    Raises:
        UserError: an unknown suite or row.
    """

    suite: str
    output: Optional[Path] = None
    device: str = "auto"
    tiny: bool = False
    again: bool = False
    only: tuple[str, ...] = ()
    budget_s: Optional[float] = None

    def __post_init__(self) -> None:
        if self.suite not in SUITES:
            raise UserError(f"suite={self.suite} is unknown; choose one of {', '.join(SUITES)}")
        known = [entry.name for entry in SUITES[self.suite]]
        if unknown := sorted(set(self.only) - set(known)):
            raise UserError(f"row {', '.join(unknown)} is unknown; choose from {', '.join(known)}")
        if self.tiny and self.output is not None and self.output.resolve() == OUTPUT.resolve():
            raise UserError(
                f"--tiny measures nothing that counts and may not write to {self.output}; give "
                f"another --output, or none"
            )

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return self.output or (REHEARSED if self.tiny else OUTPUT)


@dataclass(frozen=True)
class Row:
    """What is known of a row: its report, or why there is none."""

    entry: Entry
    report: Optional[dict[str, Any]] = None
    reason: str = ""


def run_suite(options: SuiteOptions, program: Path) -> tuple[Path, list[Row]]:
    """Runs what is missing and writes the page.

    Args:
        options: what to run.
        program: tools/benchmark.py.

    Returns:
        The page and the rows that it shows, in order.
    """
    device = select_device(options.device)
    options.folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + options.budget_s if options.budget_s else None
    entries, rows = SUITES[options.suite], []
    page = options.folder / f"{options.suite}.md"
    for entry in Progress(len(entries), f"suite {options.suite}", "row").track(entries):
        rows.append(_row(entry, options, device, program, until))
        later = [_stored(one, options) for one in entries[len(rows) :]]
        with whole_file(page) as file:
            file.write(page_text(options, [*rows, *later]).encode())
    return page, rows


def _row(
    entry: Entry, options: SuiteOptions, device: Device, program: Path, until: Optional[float]
) -> Row:
    stored = _stored(entry, options)
    if options.only and entry.name not in options.only:
        return stored
    reason = _absent(entry, options, device)
    if stored.report is not None and (reason or _is_done(stored.report, options, device)):
        return stored
    left = None if until is None else until - time.monotonic()
    if not reason and left is not None and left < (1 if options.tiny else entry.expected_s):
        reason = f"{max(left, 0):.0f} s of the budget were left; run the suite again"
    if not reason:
        report, reason = _run(entry, options, device, program, left)
        if report is not None:
            write_json(options.folder / f"{entry.name}.json", report)
            return Row(entry, report)
    if reason:
        logger.warning("%s stays empty: %s", entry.name, reason)
    return Row(entry, stored.report, reason)


def _is_done(report: dict[str, Any], options: SuiteOptions, device: Device) -> bool:
    """Whether a report need not be made anew: it is this hardware's, and has its first figure."""
    here = _machine(report["suite"]["hardware"]) == _machine(device.name())
    found = figures(report)
    again = options.again or options.tiny
    return not again and here and (not found or found[0]["value"] is not None)


def _absent(entry: Entry, options: SuiteOptions, device: Device) -> str:
    if entry.needs == "cuda" and device.kind != "cuda" and not options.tiny:
        return "no GPU where the suite was last run"
    return ""


def _stored(entry: Entry, options: SuiteOptions) -> Row:
    """The report of an earlier run, of this kind (rehearsed or not)."""
    path = options.folder / f"{entry.name}.json"
    if not path.is_file():
        return Row(entry, reason="not run yet")
    report = json.loads(path.read_text(encoding="utf-8"))
    if report.get("suite", {}).get("tiny") != options.tiny:
        return Row(entry, reason="not run yet")
    return Row(entry, report)


def _run(
    entry: Entry, options: SuiteOptions, device: Device, program: Path, left: Optional[float]
) -> tuple[Optional[dict[str, Any]], str]:
    """The report of one command, or why it gave none."""
    argv = arguments(entry, options.tiny, device.kind)
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, str(program), *argv, "--json"],
            capture_output=True,
            text=True,
            timeout=left,
            # Blocks that can grow: a whole 7B model leaves no room for holes. The same for all.
            env={"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", **os.environ},
        )
    except subprocess.TimeoutExpired:
        return None, f"stopped after {left:.0f} s, the rest of the budget; run the suite again"
    if done.returncode:
        sys.stderr.write(done.stderr)
        return None, _last_words(done.stderr) or f"ended with status {done.returncode}"
    try:
        report = json.loads(done.stdout[done.stdout.index("{") :])
    except ValueError:
        return None, "printed no report"
    report["suite"] = {
        "row": entry.name,
        "command": command(entry, options.tiny, device.kind),
        "seconds": round(time.perf_counter() - start, 1),
        "hardware": report.get("hardware") or device.name(),
        "date": time.strftime("%Y-%m-%d"),
        "tiny": options.tiny,
    }
    return report, ""


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1][:300]


def arguments(entry: Entry, tiny: bool, device_kind: str) -> list[str]:
    """What follows the program's name, but for `--json`. Options go before the overrides, since
    some take several values."""
    first, *rest = entry.tiny if tiny else entry.argv
    device = ["--device", device_kind] if entry.devices else []
    return [first, *device, *rest]


def command(entry: Entry, tiny: bool = False, device_kind: str = "auto") -> str:
    """The command as a user types it."""
    kind = entry.needs or device_kind
    return " ".join(["python", PROGRAM, *arguments(entry, tiny, device_kind if tiny else kind)])


def _machine(hardware: str) -> str:
    """Without the number of threads, which is an option."""
    return hardware.split(",")[0]


def page_text(options: SuiteOptions, rows: list[Row]) -> str:
    """The page of a suite: all figures beside their bars, then each report."""
    filled = [row for row in rows if row.report is not None]
    empty = [row for row in rows if row.report is None]
    head = [f"# Suite `{options.suite}`", "", INTRODUCTIONS[options.suite], ""]
    if options.tiny:
        head += ["**A rehearsal: small sizes, and no figure of it counts.**", ""]
    again = f"python {PROGRAM} suite {options.suite}"
    head += [
        f"Written by `{again}`; {len(filled)} of {len(rows)} rows are filled. Rows that are there "
        f"are kept: run it again to fill the rest, or with `--again` to measure anew.",
    ]
    parts = ["\n".join(head), _summary(rows), *(_section(row, options) for row in filled)]
    if empty:
        parts.append(_empty_rows(empty))
    return "\n\n".join(part for part in parts if part).rstrip() + "\n"


def _summary(rows: list[Row]) -> str:
    """Every figure beside its bar; those of rows that are still empty have no value."""
    bars = []
    for row in (row for row in rows if row.entry.judged):
        shown = [bar.row() for bar in row.entry.bars] if row.report is None else figures(row.report)
        bars += [bar | {"benchmark": row.entry.name} for bar in shown]
    return "## Figures and their bars\n\n" + bars_table(bars) if bars else ""


def figures(report: dict[str, Any]) -> list[dict[str, Any]]:
    """A report's figures with a bar: its `bars`, or those of its `rows` that have one.

    A row's figure is its `value`, else its `ratio`, else `ours`; `met` tells from which side the
    bar counts where `at_least` does not.
    """
    found = []
    for row in report.get("bars") or report.get("rows", []):
        if row.get("bar") is None:
            continue
        named = (row.get(name) for name in ("value", "ratio", "ours"))
        value = next((one for one in named if one is not None), None)
        above = value is None or (value >= row["bar"]) == row["met"]
        at_least = row.get("at_least", above)
        found.append({key: row[key] for key in ("name", "bar", "met")})
        found[-1] |= {"value": value, "at_least": at_least}
    return found


def _section(row: Row, options: SuiteOptions) -> str:
    told = row.report["suite"]
    text = (
        f"## {row.entry.title}\n\n{row.entry.name}.json\n\n```bash\n{told['command']}\n```\n\n"
        f"{told['date']}, {told['hardware']}, {told['seconds']:.0f} s in all."
    )
    if row.reason:
        text += f" Not measured anew: {row.reason}."
    return text + _shown(row)


def _shown(row: Row) -> str:
    """The report's own table, where this version has one that can read it: a kept report may be
    of an earlier one."""
    module, _, name = row.entry.shows.partition(":")
    try:
        return "\n\n" + getattr(importlib.import_module(module), name)(row.report)
    except (ImportError, AttributeError, KeyError, ValueError):
        return ""


def _empty_rows(rows: list[Row]) -> str:
    lines = ["## Rows that are still empty", "", "| row | figure | why | command |",
             "|---|---|---|---|"]  # fmt: skip
    for row in rows:
        reason = row.reason.replace("|", "\\|")
        lines.append(
            f"| {row.entry.name} | {row.entry.title} | {reason} | `{command(row.entry)}` |"
        )
    return "\n".join(lines)
