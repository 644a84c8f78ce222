"""Fits the constants of the time model to the calibration rows, and to them alone.

The fit minimises the squared logarithmic errors of tokens/s, in units of ROW_ERROR, plus the
squared distance of each constant from what microbenchmarks say, in units of its own spread: a few
rows move a constant only as far as they must (maximum a posteriori, by Levenberg-Marquardt).
"""

from collections.abc import Callable
from dataclasses import replace
from math import log

import numpy as np

from megatron_biollm.planner.anchors import Anchor, load_anchors
from megatron_biollm.planner.calibration import Calibration, load_calibration, read_shipped
from megatron_biollm.planner.timing import predict_step

# How well a row is believed to be described, as a relative error: the same run repeated by its
# authors differs by 1 %, by others more, and every row leaves something open.
ROW_ERROR = 0.05
STEPS = 40
DIGITS = 4


def refit(rows: list[Anchor] | None = None) -> dict[str, float]:
    """The fitted constants by name, rounded to DIGITS significant digits.

    rows: to fit to; the calibration rows if None.
    """
    entries = read_shipped()["fitted"]
    if rows is None:
        rows = [anchor for anchor in load_anchors() if anchor.calibrated]
    prior = np.array([log(entry["prior"]) for entry in entries.values()])
    spread = np.array([log(entry["spread"]) for entry in entries.values()])

    def residuals(logs: np.ndarray) -> np.ndarray:
        values = dict(zip(entries, np.exp(logs).tolist(), strict=True))
        calibration = replace(load_calibration(), **values)
        errors = [log_error(row, calibration) / ROW_ERROR for row in rows]
        return np.concatenate([errors, (logs - prior) / spread])

    fitted = np.exp(_least_squares(residuals, prior))
    return {name: float(f"{value:.{DIGITS}g}") for name, value in zip(entries, fitted, strict=True)}


def log_error(row: Anchor, calibration: Calibration) -> float:
    """Logarithm of predicted over published tokens/s."""
    step = predict_step(row.work, row.candidate, row.gpu, calibration, row.software)
    return log(step.tokens_per_second_per_gpu / row.tokens)


def _least_squares(residuals: Callable, start: np.ndarray) -> np.ndarray:
    """Levenberg-Marquardt with a numerical Jacobian; steps that do not help are damped."""
    point, damping = start.copy(), 1e-3
    value = residuals(point)
    for _ in range(STEPS):
        jacobian = _jacobian(residuals, point)
        normal = jacobian.T @ jacobian
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), jacobian.T @ value)
        trial = residuals(point - step)
        if trial @ trial < value @ value:
            point, value, damping = point - step, trial, damping / 5
        else:
            damping *= 5
        if np.abs(step).max() < 1e-5:
            break
    return point


def _jacobian(residuals: Callable, point: np.ndarray, width: float = 1e-5) -> np.ndarray:
    columns = []
    for index in range(len(point)):
        shift = np.zeros_like(point)
        shift[index] = width
        columns.append((residuals(point + shift) - residuals(point - shift)) / (2 * width))
    return np.array(columns).T
