"""The tables of the benchmark of start-up."""

from typing import Any


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    versions, repeats = report["versions"], report["options"]["repeats"]
    lines = [
        f"{report['date']}, {report['hardware']}, torch {versions['torch']}, megatron-core "
        f"{versions['megatron-core']}, whole processes, medians of {repeats}",
        "",
        "| | ours (s) | plain script (s) | ratio | bar | |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['name']} | {row['ours']:.2f} | {row['peer']:.2f} | {row['ratio']:.2f} | "
            f"{row['bar']} | {'met' if row['met'] else 'NOT met'} |"
            for row in report["rows"]
        ),
        "",
    ]
    for count in report["options"]["processes"]:
        lines += _phases([side for side in report["sides"] if side["processes"] == count])
    lines += ["| deferred | ms | |", "|---|---|---|"]
    lines += [f"| {m['name']} | {m['ms']:.0f} | {m['why']} |" for m in report["deferred"]]
    return "\n".join(lines)


def _phases(sides: list[dict[str, Any]]) -> list[str]:
    names = list(sides[0]["phases"])
    lines = [
        f"| {sides[0]['processes']} processes, seconds | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    for side in sides:
        values = (f"{side['phases'][name]:.2f}" for name in names)
        lines.append(f"| {side['name']} | {' | '.join(values)} |")
    return [*lines, ""]
