"""Sources of texts, named on the command line, as benchmarks whose perplexity is scored."""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import orjson

from megatron_biollm.config import UserError
from megatron_biollm.data.lines import find_inputs, plan_shards, read_lines
from megatron_biollm.evaluation.benchmark import Benchmark, Conventions, MissingFile, Source
from megatron_biollm.evaluation.items import DocumentItem
from megatron_biollm.evaluation.perplexity import texts_benchmark
from megatron_biollm.log import get_logger

KEY = "text"
logger = get_logger(__name__)


def text_benchmarks(patterns: Mapping[str, str]) -> list[Benchmark]:
    """A benchmark for each source, from the files that its pattern matches.

    Raises:
        UserError: a name that is none; what is wrong with files, reading tells.
    """
    return [
        texts_benchmark(name, pattern, partial(_read, pattern))
        for name, pattern in patterns.items()
    ]


def read_documents(pattern: str) -> list[DocumentItem]:
    """The documents of JSON lines (.gz, .zst too) in the order of the files' names.

    An item's id is its file below the folder that all files share, and its line. Documents without
    a word are left out, and counted in a warning.

    Raises:
        MissingFile: no file.
        UserError: a damaged one, a line without `text`, or no document with a word.
    """
    try:
        files = find_inputs(pattern)
    except UserError as error:
        raise MissingFile(
            f"{pattern} names no file; give JSON lines with {KEY!r} (.gz, .zst too), or a pattern"
        ) from error
    base = Path(os.path.commonpath([Path(file).parent for file in files]))
    items: list[DocumentItem] = []
    empty = 0
    for number, file, text in _texts(files):
        if not text.strip():
            empty += 1
            continue
        name = f"{Path(file).relative_to(base)}:{number}"
        items.append(DocumentItem(name, name, text))
    if empty:
        logger.warning("%s: %d documents without a word are left out", pattern, empty)
    if not items:
        raise UserError(f"{pattern} holds no document with a word; give files with {KEY!r}")
    return items


def _read(pattern: str, source: Source, conventions: Conventions) -> list[DocumentItem]:
    return read_documents(pattern)


def _texts(files: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """The number, from 1 in its file, the file and the text of each line."""
    numbers = dict.fromkeys(files, 0)
    for shard, block in plan_shards(list(files), workers=1):
        if shard.kind == "rows":
            raise UserError(f"{shard.file} is Parquet; give JSON lines, plain, .gz or .zst")
        for lines in read_lines(shard, block):
            for line in lines:
                numbers[shard.file] += 1
                yield numbers[shard.file], shard.file, _text(line, shard.file, numbers[shard.file])


def _text(line: bytes | bytearray, file: str, number: int) -> str:
    """The text of a line; an empty line is a document without words."""
    if not line.strip():
        return ""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise UserError(
            f"{file}:{number} is not JSON ({error}); mend it or leave it out"
        ) from error
    text = row.get(KEY) if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise UserError(f"{file}:{number} has no text in {KEY!r}; every line is a JSON object")
    return text
