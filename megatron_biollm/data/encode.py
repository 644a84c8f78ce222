"""JSON lines to token ids, exactly as Megatron-LM's `tools/preprocess_data.py` makes them."""

import contextlib
import functools
import glob
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from megatron_biollm.config import UserError
from megatron_biollm.data.workers import ordered_map

_BATCH_LINES, _BATCH_BYTES = 512, 1 << 20


@dataclass(frozen=True)
class EncodeOptions:
    """What `tools/preprocess_data.py` is asked to do; the names are Megatron-LM's."""

    input: str
    output_prefix: str
    json_keys: list[str] = field(default_factory=lambda: ["text"])
    append_eod: bool = False
    workers: int = 1
    partitions: int = 1
    keep_sequential_samples: bool = False
    skip_bad_lines: bool = False

    def __post_init__(self) -> None:
        for name in ("workers", "partitions"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} is {getattr(self, name)}; give 1 or more")
        if not self.json_keys or len(set(self.json_keys)) < len(self.json_keys):
            raise UserError(
                f"--json-keys is {' '.join(self.json_keys) or 'empty'}; name each key once"
            )

    @property
    def streams(self) -> int:
        """Document i lies in stream i modulo this, and the streams follow one another."""
        return 1 if self.keep_sequential_samples else self.partitions

    def prefix(self, key: str) -> str:
        return f"{self.output_prefix}_{key}_document"


@dataclass(frozen=True)
class LineBatch:
    """Consecutive lines of one file.

    first_line: number of the first one in its file, from 1. first_document: its number in the
    whole corpus, from 0.
    """

    file: str
    first_line: int
    first_document: int
    lines: list[bytes]


@dataclass
class Column:
    """Encoded documents of one JSON key and one partition, as `IndexedWriter.add_documents` takes.

    tokens: [all tokens]. sequence_lengths: [all sequences]. sequences_per_document: [documents].
    """

    tokens: np.ndarray
    sequence_lengths: np.ndarray
    sequences_per_document: np.ndarray


@dataclass
class EncodedBatch:
    """columns: by (JSON key, partition). bad: a message for every line that was left out."""

    columns: dict[tuple[str, int], Column]
    lines: int
    bytes: int
    bad: list[str] = field(default_factory=list)


class Encoder:
    """Turns a batch of lines into token ids.

    tokenizer: has `encode_batch` and `eod`. json_keys: fields that hold the text, or a list of
    texts. append_eod: ends every document that has a token with `eod`. partitions: document i goes
    to partition i modulo this. dtype: of the ids.
    """

    def __init__(
        self, tokenizer: Any, json_keys: list[str], append_eod: bool, partitions: int, dtype: str
    ):
        self.tokenizer = tokenizer
        self.json_keys = json_keys
        self.append_eod = append_eod
        self.partitions = partitions
        self.dtype = np.dtype(dtype)

    def __call__(self, batch: LineBatch) -> EncodedBatch:
        texts: dict[tuple[str, int], list[list[str]]] = {
            (key, part): [] for key in self.json_keys for part in range(self.partitions)
        }
        bad = []
        for offset, line in enumerate(batch.lines):
            try:
                fields = parse_line(line, self.json_keys)
            except ValueError as error:
                bad.append(f"{batch.file}, line {batch.first_line + offset}: {error}")
                continue
            part = (batch.first_document + offset) % self.partitions
            for key, sentences in fields.items():
                texts[key, part].append(sentences)
        columns = {place: self._encode(documents) for place, documents in texts.items()}
        return EncodedBatch(columns, len(batch.lines), sum(map(len, batch.lines)), bad)

    def _encode(self, documents: list[list[str]]) -> Column:
        ids = iter(self.tokenizer.encode_batch([text for texts in documents for text in texts]))
        tokens: list[int] = []
        lengths: list[int] = []
        per_document: list[int] = []
        for texts in documents:
            filled = [sequence for sequence in (next(ids) for _ in texts) if len(sequence)]
            for sequence in filled:
                tokens.extend(sequence)
                lengths.append(len(sequence))
            if filled and self.append_eod:
                tokens.append(self.tokenizer.eod)
                lengths[-1] += 1
            per_document.append(len(filled))
        return Column(
            np.array(tokens, self.dtype), np.array(lengths, np.int32), np.array(per_document, int)
        )


def make_encoder(tokenizer_factory: Callable[[], Any], **settings: Any) -> Encoder:
    """An Encoder with a tokenizer of its own; picklable as a `functools.partial`."""
    return Encoder(tokenizer_factory(), **settings)


def parse_line(line: bytes, json_keys: list[str]) -> dict[str, list[str]]:
    """The texts of one JSON line, by key.

    Raises:
        ValueError: saying what is wrong with the line: not UTF-8, not a JSON object, a key is
            missing or holds something else than text.
    """
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {line[error.start]:#04x} at {error.start} is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at character {error.pos})") from error
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object is expected, not {type(value).__name__}")
    return {key: _texts(value, key) for key in json_keys}


def read_batches(files: list[str]) -> Iterator[LineBatch]:
    """The lines of the files, plain or `.gz`, in batches of at most 512 lines or about 1 MiB."""
    document = 0
    for name in files:
        number = 1
        for lines in _read_lines(name):
            for start in range(0, len(lines), _BATCH_LINES):
                piece = lines[start : start + _BATCH_LINES]
                yield LineBatch(name, number, document, piece)
                number += len(piece)
                document += len(piece)


def find_inputs(pattern: str) -> list[str]:
    """The files that a path or a glob pattern names, sorted.

    Raises:
        UserError: there is none.
    """
    if Path(pattern).is_file():
        return [pattern]
    matches = glob.glob(pattern)  # noqa: PTH207 (Path.glob takes no absolute pattern)
    files = sorted(name for name in matches if Path(name).is_file())
    if not files:
        raise UserError(f"--input {pattern} names no file; give a JSON-lines file or a pattern")
    return files


def encode_files(
    files: list[str],
    tokenizer_factory: Callable[[], Any],
    workers: int = 1,
    skip_bad_lines: bool = False,
    **settings: Any,
) -> Iterator[EncodedBatch]:
    """Encodes all lines of the files, in order.

    settings: as `Encoder` takes them.

    Raises:
        UserError: at the first bad line, unless `skip_bad_lines`.
    """
    make = functools.partial(make_encoder, tokenizer_factory, **settings)
    with contextlib.closing(ordered_map(make, read_batches(files), workers)) as batches:
        for batch in batches:
            if batch.bad and not skip_bad_lines:
                raise UserError(
                    f"{batch.bad[0]}; every line must be a JSON object with text under "
                    f"{', '.join(settings['json_keys'])}: mend the line, or pass --skip-bad-lines "
                    "to leave such lines out and have them counted"
                )
            yield batch


def _read_lines(name: str) -> Iterator[list[bytes]]:
    try:
        with gzip.open(name, "rb") if name.endswith(".gz") else Path(name).open("rb") as file:
            while lines := file.readlines(_BATCH_BYTES):
                yield lines
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{name} is not a complete gzip file ({error}); fetch or compress it again"
        ) from error


def _texts(value: dict[str, Any], key: str) -> list[str]:
    if key not in value:
        raise ValueError(f"the key {key!r} is missing; there are {', '.join(map(repr, value))}")
    texts = value[key] if isinstance(value[key], list) else [value[key]]
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{key!r} holds {type(text).__name__}, not text or a list of texts")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"{key!r} holds half a surrogate pair, which is no text") from error
    return texts
