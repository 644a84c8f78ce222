"""Reports of layers and of training as Markdown."""

from typing import Any, Optional

from megatron_biollm.recipes.benchmarks.bars import bars_table
from megatron_biollm.recipes.benchmarks.ceilings import ceilings_line
from megatron_biollm.recipes.benchmarks.step_profile import profile_table

COLUMNS = (
    "", "tokens/s", "step (ms), median", "fastest", "slowest", "TFLOP/s", "MFU", "of ceiling",
    "peak memory (GiB)", "rehearsed", "planned", "state",
)  # fmt: skip
TIMES = ("step_time_s", "fastest_s", "slowest_s")
GIB = 2**30


def table(report: dict[str, Any]) -> str:
    """The whole report: what was measured on, sides, bars and profiles."""
    parts = [head(report), sides_table(report), _kernels(report), bars_table(report["bars"])]
    return "\n\n".join([part for part in parts if part] + profiles(report))


def head(report: dict[str, Any]) -> str:
    """Date, hardware, versions, sizes, formula, peak and ceilings."""
    options, versions = report["options"], report["versions"]
    model = options["model"]
    known = ", ".join(f"{name} {version}" for name, version in versions.items())
    processes = options.get("processes", 1)
    peak = f"{report['peak_tflops']:,.4g} TFLOP/s" if report["peak_tflops"] else "unknown"
    return (
        f"{report['date']}, {report['hardware']}"
        + (f", {processes} processes" if processes > 1 else "")
        + f"; {known}.\n{model['num_layers']} layers, hidden {model['hidden_size']}, "
        f"{model['num_attention_heads']} heads, {model['num_query_groups']} groups, FFN "
        f"{model['ffn_hidden_size']}, sequence {model['seq_length']}, vocabulary "
        f"{model['vocab_size']}, micro-batch {options['micro_batch_size']} x "
        f"{options['num_microbatches']}, {'bf16' if options['bf16'] else 'fp32'}, "
        f"{options['threads']} threads.\nFLOPs per token {report['flops_formula']} = "
        f"{report['flops_per_token']:.4g}; peak {peak} ({report['peak_source']}); "
        f"{ceilings_line(report['ceilings'])}."
    )


def sides_table(report: dict[str, Any]) -> str:
    """A row for each side; one that did not run says why."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * (len(COLUMNS) - 2) + "---|"]
    for row in report["rows"]:
        cells = (
            row["name"],
            _number(row["tokens_per_second"], ",.0f"),
            *(
                _number(row[name], ",.1f", 1e3)
                for name in ("step_time_s", "fastest_s", "slowest_s")
            ),
            _number(row["tflops"], ",.4g"),
            _number(row["mfu"], ".1%"),
            _number(row["of_ceiling"], ".1%"),
            _number(row["peak_memory_bytes"], ".1f", 1 / GIB),
            _predicted(row, "rehearsed_memory_bytes", "rehearsal_error"),
            _predicted(row, "planned_memory_bytes", "planner_error"),
            _state(row),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def profiles(report: dict[str, Any]) -> list[str]:
    """A table for each side that was recorded."""
    ceiling, rows = report["ceilings"]["matrix_tflops"], report["rows"]
    return [
        profile_table(
            row["name"],
            report["profiles"][row["name"]],
            row["step_time_s"],
            row["tflops"] * row["step_time_s"] / ceiling,
        )
        for row in rows
        if row["name"] in report.get("profiles", {}) and row["step_time_s"]
    ]


def _number(value: Optional[float], form: str, scale: float = 1.0) -> str:
    return "" if value is None else format(value * scale, form)


def _predicted(row: dict[str, Any], name: str, error: str) -> str:
    shown = _number(row.get(name), ".1f", 1 / GIB)
    return f"{shown} ({row[error]:+.1%})" if row.get(error) is not None else shown


def _state(row: dict[str, Any]) -> str:
    reason = f"; not run: {row['reason']}" if row["reason"] else ""
    return f"{row['state']}{reason}".replace("|", "\\|").removeprefix("; ")


def _kernels(report: dict[str, Any]) -> str:
    """What each side computes with."""
    return "\n".join(
        f"- {row['name']}: {row['kernels']}" for row in report["rows"] if row["kernels"]
    )
