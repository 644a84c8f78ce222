"""Documents to token ids, exactly as Megatron-LM's `tools/preprocess_data.py` makes them."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np
import orjson

from megatron_biollm.config import UserError
from megatron_biollm.data.document_ids import ID_KEY, id_line
from megatron_biollm.data.fast_encode import TextEncoder, narrow
from megatron_biollm.data.lines import Shard, count_lines_before, read_lines, read_rows
from megatron_biollm.data.long_text import LONG_BYTES, LongText, loads_long
from megatron_biollm.tokenizer.sentences import BIOMEDICAL

LITERALS = ("as-tokenizer", "text", "refuse")
DTYPES = {"auto": None, "uint16": "<u2", "int32": "<i4"}

_SAMPLED_CHARACTERS = 1 << 16


@dataclass(frozen=True)
class EncodeOptions:
    """What `tools/preprocess_data.py` is asked to do; the names are Megatron-LM's.

    Ours are skip_bad_lines; literal_control_tokens, what becomes of a control token's text in a
    document; dtype of the ids, instead of Megatron-LM's choice; exact, to encode by the tokenizer
    itself; and that keep_sequential_samples takes any number of partitions.
    """

    input: str
    output_prefix: str
    json_keys: list[str] = field(default_factory=lambda: ["text"])
    append_eod: bool = False
    split_sentences: bool = False
    keep_newlines: bool = False
    lang: str = BIOMEDICAL
    workers: int = 1
    partitions: int = 1
    keep_sequential_samples: bool = False
    skip_bad_lines: bool = False
    literal_control_tokens: str = "as-tokenizer"
    dtype: str = "auto"
    exact: bool = False

    def __post_init__(self) -> None:
        for name in ("workers", "partitions"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} is {getattr(self, name)}; give 1 or more")
        if not self.json_keys or len(set(self.json_keys)) < len(self.json_keys):
            raise UserError(
                f"--json-keys is {' '.join(self.json_keys) or 'empty'}; name each key once"
            )
        if self.keep_newlines and not self.split_sentences:
            raise UserError("--keep-newlines is given without --split-sentences; give both or none")
        for name, known in (("literal_control_tokens", LITERALS), ("dtype", tuple(DTYPES))):
            if getattr(self, name) not in known:
                flag = f"--{name.replace('_', '-')}"
                raise UserError(f"{flag} is {getattr(self, name)}; give {', '.join(known)}")

    @property
    def streams(self) -> int:
        """Document i lies in stream i modulo this, and the streams follow one another."""
        return 1 if self.keep_sequential_samples else self.partitions

    def prefix(self, key: str) -> str:
        return f"{self.output_prefix}_{key}_{'sentence' if self.split_sentences else 'document'}"


@dataclass
class Column:
    """Encoded documents of one JSON key and one stream.

    tokens: [all tokens]. sequence_lengths: [all sequences]. sequences_per_document: [documents].
    false_ends: tokens that end a document in its middle. names: their own ids, as in
    `document_ids`.
    """

    tokens: np.ndarray
    sequence_lengths: np.ndarray
    sequences_per_document: np.ndarray
    false_ends: int
    names: bytes = b""


@dataclass
class EncodedBatch:
    """Some records of a shard.

    columns: by (position of the JSON key, stream). bad: a message for every line left out.
    """

    columns: dict[tuple[int, int], Column]
    lines: int
    bytes: int
    bad: list[str] = field(default_factory=list)


class BatchEncoder:
    """Turns documents of one shard into token ids.

    encoder: of texts. options: as asked for. dtype: of the ids. split: a text to its sentences.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        options: EncodeOptions,
        dtype: str,
        split: Optional[Callable[[str], list[str]]] = None,
    ):
        self.encoder, self.options, self.split = encoder, options, split
        self.eod, self.sample = encoder.plan.eod, 0
        self.dtype = np.dtype(dtype)
        self.refused = None
        if options.literal_control_tokens == "refuse":
            self.refused = re.compile("|".join(map(re.escape, encoder.plan.control_tokens)))

    def __call__(
        self, shard: Shard, block: Optional[bytes] = None, sample: bool = False
    ) -> Iterator[EncodedBatch]:
        """The shard's documents, some MiB of text at a time.

        sample: some of the ids are compared with those of the tokenizer itself.

        Raises:
            UserError: a bad line, unless they are to be left out; ids that differ.
        """
        number, self.sample = 0, _SAMPLED_CHARACTERS if sample else 0
        for records in self._records(shard, block):
            batch = self.encode(shard, number, records)
            number += batch.lines
            yield batch
            self.encoder.bound_memory()

    def encode(self, shard: Shard, number: int, records: list[Any]) -> EncodedBatch:
        """number: of the first record within the shard, from 0."""
        streams, keys = self.options.streams, self.options.json_keys
        texts: dict[tuple[int, int], list[list[str]]] = {
            (key, stream): [] for key in range(len(keys)) for stream in range(streams)
        }
        names: list[list[bytes]] = [[] for _ in range(streams)]
        bad: list[str] = []
        for offset, record in enumerate(records):
            try:
                record = record if isinstance(record, dict) else load_line(record)
                fields = self._texts(record)
            except ValueError as error:
                bad.append(self._bad(shard, number + offset, error))
                continue
            names[(number + offset) % streams].append(id_line(record))
            for key, sentences in enumerate(fields.values()):
                texts[key, (number + offset) % streams].append(sentences)
        size = sum(len(record) for record in records) if shard.kind != "rows" else 0
        count = len(records)
        records.clear()  # a document of 200 MB is held once
        columns = {place: self._column(documents) for place, documents in texts.items()}
        for (_, stream), column in columns.items():
            column.names = b"".join(names[stream])
        return EncodedBatch(columns, count, size, bad)

    def _records(self, shard: Shard, block: Optional[bytes]) -> Iterator[list[Any]]:
        if shard.kind == "rows":
            return read_rows(shard, self.options.json_keys, [ID_KEY])
        return read_lines(shard, block)

    def _texts(self, record: dict[str, Any]) -> dict[str, list[str]]:
        fields = {key: _checked(record, key) for key in self.options.json_keys}
        if self.refused or self.split:
            fields = {key: list(map(str, texts)) for key, texts in fields.items()}
        if self.refused:
            for key, texts in fields.items():
                for found in filter(None, map(self.refused.search, texts)):
                    raise ValueError(f"{key!r} holds the control token {found[0]!r} as text")
        if self.split:
            return {key: self._sentences(key, texts) for key, texts in fields.items()}
        return fields

    def _sentences(self, key: str, texts: list[str]) -> list[str]:
        return [sentence for text in texts for sentence in self.split(text)]

    def _bad(self, shard: Shard, number: int, error: ValueError) -> str:
        place = "row" if shard.kind == "rows" else "line"
        line = count_lines_before(shard) + number + 1
        message = f"{shard.file}, {place} {line}: {error}"
        if self.options.skip_bad_lines:
            return message
        raise UserError(
            f"{message}; every {place} must have text under {', '.join(self.options.json_keys)}: "
            f"mend the {place}, or pass --skip-bad-lines to leave such out and have them counted"
        )

    def _column(self, documents: list[list[str]]) -> Column:
        texts = [text for texts in documents for text in texts]
        per_text = np.fromiter(map(len, documents), np.int64, len(documents))
        encoded = list(self.encoder.encode(texts))
        self._compare_sample(texts, encoded)
        texts.clear()
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        tokens = _joined(encoded, self.dtype)
        encoded.clear()
        tokens = narrow(tokens, self.dtype)
        per_document = _per_document(lengths > 0, per_text)
        false_ends = int(np.count_nonzero(tokens == self.eod))
        lengths = lengths[lengths > 0]
        if self.options.append_eod:
            last = np.cumsum(per_document)[per_document > 0] - 1
            tokens = np.insert(tokens, np.cumsum(lengths)[last], self.eod)
            lengths[last] += 1
        return Column(tokens, lengths.astype(np.int32), per_document, false_ends)

    def _compare_sample(self, texts: list[str], encoded: list[np.ndarray]) -> None:
        for text, ids in zip(texts, encoded, strict=True):
            if self.sample <= 0 or self.encoder.plan.fast is None:
                return
            if isinstance(text, str) and len(text) < _SAMPLED_CHARACTERS:
                self.sample -= len(text) + 1
                self.encoder.compare(text, ids)


def parse_line(line: bytes | bytearray, json_keys: list[str]) -> dict[str, list[str | LongText]]:
    """The texts of one JSON line, by key.

    Raises:
        ValueError: saying what is wrong with the line: not UTF-8, not a JSON object, a key is
            missing or holds something else than text.
    """
    value = load_line(line)
    return {key: _checked(value, key) for key in json_keys}


def load_line(line: bytes | bytearray) -> dict[str, Any]:
    """The object of one JSON line. Raises ValueError as `parse_line`."""
    try:
        value = orjson.loads(line) if len(line) < LONG_BYTES else loads_long(line)
    except orjson.JSONDecodeError:
        value = _loads(line)  # takes what orjson refuses and Python does not, as Megatron-LM does
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object is expected, not {type(value).__name__}")
    return value


def _loads(line: bytes | bytearray) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {line[error.start]:#04x} at {error.start} is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at character {error.pos})") from error
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error


def _checked(value: dict[str, Any], key: str) -> list[str]:
    if key not in value:
        raise ValueError(f"the key {key!r} is missing; there are {', '.join(map(repr, value))}")
    texts = value[key] if isinstance(value[key], list) else [value[key]]
    for text in texts:
        if isinstance(text, LongText):
            continue
        if not isinstance(text, str):
            raise ValueError(f"{key!r} holds {type(text).__name__}, not text or a list of texts")
        try:
            text.isascii() or text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"{key!r} holds half a surrogate pair, which is no text") from error
    return texts


def _joined(arrays: list[np.ndarray], dtype: np.dtype) -> np.ndarray:
    if len(arrays) == 1:
        return arrays[0]  # a long document is not copied
    return np.concatenate(arrays) if arrays else np.empty(0, dtype)


def _per_document(filled: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Filled texts of each document. filled: [texts]. texts: [documents], how many each has."""
    before = np.concatenate([[0], np.cumsum(filled)])
    ends = np.cumsum(texts)
    return before[ends] - before[ends - texts]
