"""Scores over a run's checkpoints: `curve.jsonl`, a row for each benchmark and checkpoint.

{"step": 1000, "consumed_tokens": 4194304, "benchmark": "medqa", "score": 0.27,
 "low": 0.25, "high": 0.30, "chance": 0.25, "headline": "accuracy"}
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_biollm.atomic import disk_errors
from megatron_biollm.config import UserError
from megatron_biollm.evaluation.results import Result
from megatron_biollm.rows import RowFile, read_rows

CURVE = "curve.jsonl"
_NEEDED = ("step", "consumed_tokens", "benchmark", "score", "low", "high")


def curve_rows(step: int, consumed_tokens: int, results: Iterable[Result]) -> list[dict[str, Any]]:
    """The rows of one checkpoint: headline scores with their intervals."""
    return [
        {
            "step": step,
            "consumed_tokens": consumed_tokens,
            "benchmark": one.benchmark,
            "score": one.main.value,
            "low": one.main.low,
            "high": one.main.high,
            "chance": one.chance,
            "headline": one.headline,
        }
        for one in results
    ]


def append_curve(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Adds rows to a curve file, each at once.

    Raises:
        UserError: the file cannot be written.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with disk_errors(path, "free some disk space and score again"):
        file = RowFile(path)
        errors = [error for row in rows if (error := file.append(dict(row)))]
        file.close()
        if errors:
            raise errors[0]


def read_curve(path: Path | str) -> list[dict[str, Any]]:
    """The rows of a curve file by step; of a checkpoint scored twice the later row stands.

    Raises:
        UserError: there is no such file, or a row lacks a number.
    """
    if not Path(path).is_file():
        raise UserError(
            f"{path} does not exist; give the {CURVE} of a run whose checkpoints were scored"
        )
    return check_curve(read_rows(path), str(path))


def check_curve(rows: Sequence[Mapping[str, Any]], name: str = "the curve") -> list[dict[str, Any]]:
    """Rows by step, each benchmark once a step.

    Raises:
        UserError: a row lacks a number.
    """
    kept = {}
    for row in rows:
        if lacking := [key for key in _NEEDED if row.get(key) is None]:
            raise UserError(
                f"{name}: a row of step {row.get('step')} has no {', '.join(lacking)}; every row "
                f"holds {', '.join(_NEEDED)}"
            )
        kept[row["step"], row["benchmark"]] = dict(row)
    return [kept[key] for key in sorted(kept, key=lambda key: key[0])]
