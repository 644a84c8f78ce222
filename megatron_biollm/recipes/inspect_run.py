"""A run's incidents and samples, with their documents and the beginning of their text."""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from megatron_biollm.config import UserError
from megatron_biollm.data.jumps import Ranges
from megatron_biollm.data.stream import SampleStream, build_datasets
from megatron_biollm.recipes.incidents import read_incidents, sample_documents
from megatron_biollm.recipes.run_config import RunConfig, load_run_config
from megatron_biollm.tokenizer.tokenizer import Tokenizer, build_tokenizer

Row = dict[str, Any]


def list_incidents(run_dir: Path | str, step: Optional[int] = None, samples: int = 3) -> list[Row]:
    """The run's incidents, oldest first; `excerpts` of the first samples of each.

    Args:
        run_dir: of the run.
        step: only those of this step.
        samples: to show of each; 0 reads no corpus.

    Raises:
        UserError: no run there, or its corpora or tokenizer are gone.
    """
    rows = [row for row in read_incidents(run_dir) if step in (None, row["step"])]
    for row in rows:
        row["count"] = len(row.pop("documents"))
    if samples and rows:
        stream, tokenizer = open_stream(_config_of(run_dir))
        for row in rows:
            first, end = row["samples"][0]
            wanted = [[first, min(end, first + samples)]]
            row["excerpts"] = list(excerpts(stream, tokenizer, wanted))
    return rows


def show_samples(run_dir: Path | str, ranges: Ranges) -> list[Row]:
    """The samples at these positions of the run's stream."""
    stream, tokenizer = open_stream(_config_of(run_dir))
    return list(excerpts(stream, tokenizer, ranges))


def excerpts(
    stream: SampleStream, tokenizer: Tokenizer, ranges: Ranges, characters: int = 300
) -> Iterator[Row]:
    """As `sample_documents`, with the `text` that a sample begins with."""
    for sample in sample_documents(stream, ranges):
        ids = stream[sample["position"]]["tokens"][:characters].tolist()
        yield {**sample, "text": tokenizer.decode(ids)[:characters]}


def open_stream(config: RunConfig) -> tuple[SampleStream, Tokenizer]:
    """What a run trains on."""
    tokenizer = build_tokenizer(config.tokenizer)
    datasets = build_datasets(
        config.data, config.model.seq_length, config.training.seed, tokenizer.eod
    )
    return datasets.train, tokenizer


def as_text(rows: list[Row]) -> str:
    """Incidents, or samples alone, for people."""
    lines = []
    for row in rows:
        if "action" in row:
            lines.append(_headline(row))
        for sample in row.get("excerpts", [row] if "text" in row else []):
            names = ", ".join(sample.get("ids") or map(str, sample["documents"]))
            lines.append(f"  sample {sample['position']} of {sample['source']}")
            lines += textwrap.wrap(f"documents {names}", 96, initial_indent="    ")
            lines += textwrap.wrap(sample["text"], 96, initial_indent="    | ")
    return "\n".join(lines)


def _headline(row: Row) -> str:
    value = "" if row["value"] is None else f" {row['value']}"
    limit = "" if row["threshold"] is None else f" above {row['threshold']:.6g}"
    done = row["action"]
    if done == "rewind":
        done += f" to step {row['rewind_to']}, over samples {row['jumped'][0]}-{row['jumped'][1]}"
    reason = f" ({row['reason']})" if row["reason"] else ""
    old = "; superseded" if row.get("superseded") else ""
    return (
        f"step {row['step']}, {row['time']}: {row['kind']} {row['what']}{value}{limit}: "
        f"{done}{reason}; {row['count']} samples, batch {row['batch_hash']}{old}"
    )


def _config_of(run_dir: Path | str) -> RunConfig:
    path = Path(run_dir) / "config.yaml"
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the run_dir of a run")
    return load_run_config(path)
