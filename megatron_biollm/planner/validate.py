"""How well the planner predicts published rates, row by row, honest about which rows it was
fitted to."""

from dataclasses import replace
from math import ceil, exp
from statistics import median

from megatron_biollm.planner.anchors import (
    Anchor,
    load_anchors,
    load_bad_layouts,
    load_further,
    read_anchors,
)
from megatron_biollm.planner.calibrate import log_error, refit
from megatron_biollm.planner.calibration import Calibration, load_calibration
from megatron_biollm.planner.timing import predict_step

COLUMNS = "{:<9} {:<5} {:<58} {:>9} {:>9} {:>7}"


def validate(calibration: Calibration | None = None) -> dict:
    """Predictions beside every published row that can be modelled.

    Returns: `rows`, with name, family, precision, calibrated (whether the constants were fitted to
        it), published and predicted tokens/s per GPU, the relative `error` of the prediction, mfu
        by convention, source and assumed; `median_error` and `worst_error`, absolute, over the
        rows that did not calibrate; the same `by_precision`, and `swapped`, with the halves
        swapped; `further`, rows beyond those that count; `bad_layouts`, rows that people measured
        as bad; and `not_modelled`, with reasons.
    """
    calibration = calibration or load_calibration()
    rows = [_row(anchor, calibration) for anchor in load_anchors()]
    held_out = [row for row in rows if not row["calibrated"]]
    by_precision = {
        precision: _summary([row for row in held_out if row["precision"] == precision])
        for precision in sorted({row["precision"] for row in held_out})
    }
    return {
        "rows": rows,
        **_summary(held_out),
        "by_precision": by_precision,
        "swapped": validate_swapped(),
        "further": _further(calibration),
        "bad_layouts": [_row(anchor, calibration) for anchor in load_bad_layouts()],
        "not_modelled": read_anchors()["not_modelled"],
    }


def validate_swapped() -> dict:
    """As `validate`, with the halves swapped: constants fitted to the rows that are held out, and
    errors on those that calibrate. Says how much of the result hangs on the choice of halves."""
    anchors = load_anchors()
    swapped = [replace(anchor, calibrated=not anchor.calibrated) for anchor in anchors]
    fitted = refit([anchor for anchor in swapped if anchor.calibrated])
    calibration = replace(load_calibration(), **fitted)
    rows = [_row(anchor, calibration) for anchor in swapped]
    held_out = [row for row in rows if not row["calibrated"]]
    worst = max(held_out, key=lambda row: abs(row["error"]))
    return _summary(held_out) | {"worst_row": worst["name"]}


def shown_errors(report: dict) -> dict[str, tuple[float, float]]:
    """By precision, within which error half, and nine in ten, of all rows are that nothing was
    fitted to, the further ones among them: the error that is shown with predictions."""
    rows = [row for row in report["rows"] if not row["calibrated"]] + report["further"]["rows"]
    shown = {}
    for precision in report["by_precision"]:
        errors = sorted(abs(row["error"]) for row in rows if row["precision"] == precision)
        shown[precision] = (round(median(errors), 3), round(errors[ceil(0.9 * len(errors)) - 1], 3))
    return shown


def table(report: dict) -> str:
    """The report of `validate` as text, one block per precision."""
    lines = []
    for precision, summary in report["by_precision"].items():
        lines.append(COLUMNS.format("", "", "tokens/s per GPU", "published", "planner", "error"))
        lines += [_line(row) for row in report["rows"] if row["precision"] == precision]
        lines += [f"{precision}, held out: {_figures(summary)}", ""]
    lines.append(f"all rows held out: {_figures(report)}")
    swapped, further = report["swapped"], report["further"]
    lines.append(f"halves swapped: {_figures(swapped)}, worst: {swapped['worst_row']}")
    lines += ["", "Further rows, which neither calibrate nor count:"]
    lines += [_line(row) for row in further["rows"]]
    lines.append(f"further rows: {_figures(further)}")
    for precision, (half, most) in shown_errors(report).items():
        lines.append(
            f"{precision}, shown with predictions: half within {half:.1%}, nine in ten {most:.1%}"
        )
    lines += ["", "What sources leave open, and what was taken:"]
    shown = report["rows"] + further["rows"]
    lines += [f"  {row['name']}: {row['assumed']}" for row in shown if row["assumed"]]
    lines += ["", "Measured as bad, MFU with full attention:"]
    lines += [f"  {_mfu_line(row)}" for row in report["bad_layouts"]]
    lines += ["", "Not modelled:"]
    lines += [f"  {row['name']}: {row['reason']}" for row in report["not_modelled"]]
    return "\n".join(lines)


def _further(calibration: Calibration) -> dict:
    rows = [_row(anchor, calibration) for anchor in load_further()]
    return {"rows": rows} | _summary(rows)


def _row(anchor: Anchor, calibration: Calibration) -> dict:
    step = predict_step(anchor.work, anchor.candidate, anchor.gpu, calibration, anchor.software)
    return {
        "name": anchor.name,
        "family": anchor.family,
        "precision": anchor.work.precision,
        "calibrated": anchor.calibrated,
        "published": round(anchor.tokens, 1),
        "predicted": round(step.tokens_per_second_per_gpu, 1),
        "error": round(exp(log_error(anchor, calibration)) - 1, 4),
        "mfu": {name: round(step.mfu(name), 4) for name in step.flops_per_token},
        "source": anchor.source,
        "assumed": anchor.assumed,
    }


def _mfu_line(row: dict) -> str:
    published = row["mfu"]["full"] / (1 + row["error"])
    return f"{row['name']}: published {published:.1%}, planner {row['mfu']['full']:.1%}"


def _summary(rows: list[dict]) -> dict:
    errors = [abs(row["error"]) for row in rows]
    return {
        "held_out": len(rows),
        "median_error": round(median(errors), 4),
        "worst_error": round(max(errors), 4),
    }


def _figures(summary: dict) -> str:
    return (
        f"median error {summary['median_error']:.1%}, worst {summary['worst_error']:.1%} "
        f"({summary['held_out']} rows)"
    )


def _line(row: dict) -> str:
    half = "fitted" if row["calibrated"] else "" if row["family"] == "further" else "held out"
    return COLUMNS.format(
        half,
        row["precision"],
        row["name"],
        f"{row['published']:.0f}",
        f"{row['predicted']:.0f}",
        f"{row['error']:+.1%}",
    )
