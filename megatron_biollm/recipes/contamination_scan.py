"""Parts of training data, indexed or as JSON lines, and the search of one part for n-grams."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Optional

import numpy as np
import orjson

from megatron_biollm.config import UserError
from megatron_biollm.corpus.dedup.shingles import hash_words, ngrams
from megatron_biollm.data.inspect import token_bounds
from megatron_biollm.data.layout import read_layout
from megatron_biollm.data.lines import Shard, find_inputs, plan_shards, read_lines
from megatron_biollm.evaluation.overlap import Finder, Found, GramIndex
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer

# An item of fewer words is in ordinary text by chance.
FEWEST_WORDS = 5
UNIT_TOKENS = 1 << 23
# Tokens or characters that are decoded and hashed at once.
_BATCH = 1 << 20


@dataclass(frozen=True)
class Unit:
    """A part of the training data that one process searches in one go.

    Attributes:
        name: of its file, as given. kind: "ids" or "lines".
        first, last: documents of an indexed corpus, `last` exclusive.
        shard: of JSON lines. stamp: size and time of the file.
    """

    name: str
    kind: str
    stamp: str
    first: int = 0
    last: int = 0
    shard: Optional[Shard] = None


class Scanner:
    """Searches units; made once in every worker."""

    def __init__(self, index: Path, tokenizer: Optional[TokenizerConfig], key: str, ngram: int):
        with np.load(index) as stored:
            self.finder = Finder(GramIndex(**stored))
        self.tokenizer = build_tokenizer(tokenizer) if tokenizer else None
        self.key = key
        self.lengths = range(FEWEST_WORDS, ngram + 1)

    def __call__(self, task: tuple[Unit, Optional[bytes]]) -> tuple[Found, int, int]:
        """What a unit holds, its documents, and its words."""
        unit, block = task
        batches = self._decoded(unit) if unit.kind == "ids" else self._read(unit, block)
        found, documents, words = Found.nothing(self.finder.index), 0, 0
        for texts in batches:
            words += self._scan(texts, documents, found)
            documents += len(texts)
        return found, documents, words

    def _scan(self, texts: list[str], before: int, found: Found) -> int:
        words = hash_words(texts)
        met, documents = [], []
        for length in self.lengths:
            places, grams = self.finder.look(ngrams(words.hashes, length))
            document = np.searchsorted(words.offsets, places, "right") - 1
            whole = places + length <= words.offsets[document + 1]
            met.append(grams[whole])
            documents.append(document[whole] + before)
        self.finder.note(found, np.concatenate(met), np.concatenate(documents))
        return len(words.hashes)

    def _decoded(self, unit: Unit) -> Iterator[list[str]]:
        layout = read_layout(unit.name)
        ids, bounds = layout.token_ids(), token_bounds(layout, unit.first, unit.last)
        start = 0
        while start < len(bounds) - 1:
            end = int(np.searchsorted(bounds, bounds[start] + _BATCH, "right")) - 1
            end = min(max(end, start + 1), len(bounds) - 1)
            held = np.asarray(ids[bounds[start] : bounds[end]]).tolist()
            edges = (bounds[start : end + 1] - bounds[start]).tolist()
            spans = pairwise(edges)
            yield self.tokenizer.decode_batch([held[one:two] for one, two in spans])
            start = end

    def _read(self, unit: Unit, block: Optional[bytes]) -> Iterator[list[str]]:
        texts, size, number = [], 0, 0
        for lines in read_lines(unit.shard, block):
            for line in lines:
                number += 1
                texts.append(_text(line, self.key, unit, number))
                size += len(texts[-1])
            if size >= _BATCH:
                yield texts
                texts, size = [], 0
        if texts:
            yield texts


def _text(line: bytes | bytearray, key: str, unit: Unit, number: int) -> str:
    """The text of a line; an empty line is a document without words."""
    if not line.strip():
        return ""
    try:
        text = orjson.loads(line)[key]
        if isinstance(text, str):
            return text
        problem = f"{key!r} is no text"
    except orjson.JSONDecodeError as error:
        problem = f"it is not JSON ({error})"
    except (KeyError, TypeError):
        problem = f"it has no {key!r}"
    raise UserError(
        f"{unit.name}: in line {number} after byte {unit.shard.start}, {problem}; every line is a "
        f"JSON object with the document's text: name its key with --key"
    )


def plan_units(
    prefixes: Sequence[str], jsonl: Sequence[str], workers: int
) -> Iterator[tuple[Unit, Optional[bytes]]]:
    """The parts of the training data in order, with the lines of a packed file's.

    Raises:
        UserError: a file is missing, damaged, or of another kind.
    """
    for prefix in dict.fromkeys(prefixes):
        yield from ((unit, None) for unit in _id_units(prefix))
    files = [file for pattern in jsonl for file in find_inputs(pattern)]
    for shard, block in plan_shards(list(dict.fromkeys(files)), workers):
        if shard.kind == "rows":
            raise UserError(f"{shard.file} is Parquet; give JSON lines, or the indexed corpus")
        yield Unit(shard.file, "lines", _stamp(shard.file), shard=shard), block


def _id_units(prefix: str) -> Iterator[Unit]:
    layout, stamp = read_layout(prefix), _stamp(f"{prefix}.bin")
    bounds = token_bounds(layout, 0, layout.documents)
    marks = np.arange(0, layout.tokens + UNIT_TOKENS, UNIT_TOKENS)
    cuts = np.unique(np.append(np.searchsorted(bounds[:-1], marks), [0, layout.documents]))
    for first, last in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        yield Unit(prefix, "ids", stamp, first, last)


def _stamp(path: str) -> str:
    status = Path(path).stat()
    return f"{status.st_size} {status.st_mtime_ns}"
