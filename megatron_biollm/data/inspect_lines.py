"""What files of JSON lines or Parquet hold, by source: lengths, words, a sample of documents."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np
import orjson

from megatron_biollm.data.lengths import Lengths
from megatron_biollm.data.lines import plan_shards, read_lines, read_rows
from megatron_biollm.tokenizer.tokenizer import Tokenizer

# Enough for ratios of tokens to words, and a bound on what is held.
_SAMPLED_CHARACTERS = 200_000
_BATCH = 4096


@dataclass
class TextSurvey:
    """One pass over the documents of one source.

    documents: how many. lengths: in characters. words: what white space separates. bad: lines that
    hold no such document. sample: documents drawn with equal chances, as (number, text).
    """

    documents: int = 0
    lengths: Lengths = field(default_factory=Lengths)
    words: int = 0
    bad: int = 0
    sample: list[tuple[int, str]] = field(default_factory=list)
    _pending: list[int] = field(default_factory=list)

    def add(self, text: str) -> None:
        self.documents += 1
        self._pending.append(len(text))
        self.words += len(text.split())
        if len(self._pending) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Counts what was added since; to be called at the end."""
        self.lengths.add(np.array(self._pending, np.int64))
        self._pending.clear()


def survey_lines(
    files: list[str],
    label: str,
    key: str = "text",
    sample: int = 200,
    seed: int = 0,
    wanted: frozenset[int] = frozenset(),
    on_documents: Optional[Callable[[int], Any]] = None,
) -> tuple[dict[str, TextSurvey], dict[int, str]]:
    """Reads all files once.

    Args:
        files: .jsonl, also .gz and .zst, and .parquet.
        label: source of records that name none.
        key: field that holds the text.
        sample: how many documents of each source to draw.
        wanted: numbers, through all files from 0, of documents to return as well.
        on_documents: told how many more documents were read, now and then.

    Returns:
        The surveys by source, and the wanted documents.

    Raises:
        UserError: a file that cannot be read, or is packed and cut.
    """
    found: dict[str, TextSurvey] = {}
    texts: dict[int, str] = {}
    dice = random.Random(seed)
    number = -1
    for number, (record, text) in enumerate(_records(files, key)):
        source = str(record.get("source") or label)
        own = found.setdefault(source, TextSurvey())
        if text is None:
            own.bad += 1
            continue
        own.add(text)
        _draw(own, number, text, sample, dice)
        if number in wanted:
            texts[number] = text
        if on_documents and number % _BATCH == _BATCH - 1:
            on_documents(_BATCH)
    if on_documents:
        on_documents((number + 1) % _BATCH)
    for own in found.values():
        own.flush()
    return found, texts


def ratios(own: TextSurvey, tokenizer: Tokenizer) -> dict[str, float | int]:
    """Tokens per word and characters per token, from the sample encoded with a tokenizer."""
    texts = [text for _, text in own.sample]
    tokens = sum(len(ids) for ids in tokenizer.encode_batch(texts)) if texts else 0
    words, characters = sum(len(t.split()) for t in texts), sum(map(len, texts))
    return {
        "documents": len(texts),
        "tokens": tokens,
        "tokens_per_word": tokens / words if words else 0.0,
        "characters_per_token": characters / tokens if tokens else 0.0,
    }


def _records(files: list[str], key: str) -> Iterator[tuple[dict[str, Any], Optional[str]]]:
    """Every record with its text; None where there is no text, {} where there is no record."""
    # A worker for each file at least, so that packed files come as files, not as blocks.
    for shard, block in plan_shards(files, 1):
        if shard.kind == "rows":
            yield from ((row, _text(row, key)) for rows in read_rows(shard, [key]) for row in rows)
            continue
        for lines in read_lines(shard, block):
            for line in lines:
                if line.strip():
                    record = _parse(line)
                    yield record, _text(record, key)


def _parse(line: bytes | bytearray) -> dict[str, Any]:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            value = json.loads(line)  # takes NaN and the like, as preprocess_data does
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


def _text(record: dict[str, Any], key: str) -> Optional[str]:
    """The text of a record; a list of sentences is joined with blanks."""
    value = record.get(key)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return " ".join(value)
    return value if isinstance(value, str) else None


def _draw(own: TextSurvey, number: int, text: str, size: int, dice: random.Random) -> None:
    """Keeps the document with the chance that every document so far has: reservoir sampling."""
    text = text[:_SAMPLED_CHARACTERS]
    if len(own.sample) < size:
        own.sample.append((number, text))
    elif (place := dice.randrange(own.documents)) < size:
        own.sample[place] = (number, text)
