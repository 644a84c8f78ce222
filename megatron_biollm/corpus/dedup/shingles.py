"""Words and word n-grams of texts as 64-bit hashes, found by array operations on UTF-8 bytes.

A word is a run of letters and digits with case folded, so that punctuation, spacing and case do not
count; every Chinese or Japanese character is a word of its own. The hash of a word is a polynomial
over its bytes (Karp and Rabin 1987, "Efficient randomized pattern-matching algorithms"), taken as
the difference of two running sums: no word is ever a Python object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

# Bytes hashed at once: the arrays of 8 bytes a letter then stay in the processor's cache.
BLOCK_BYTES = 1 << 16

_U64 = np.uint64
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_NGRAM_BASE = _U64(0xD1342543DE82EF95)


@dataclass(frozen=True)
class Words:
    """The words of several texts, one after another.

    hashes: uint64, one per word. offsets: int64, texts + 1; the words of text i are
    `hashes[offsets[i]:offsets[i + 1]]`. starts: int64, the byte at which a word begins in the
    case-folded texts, encoded and joined by one byte each.
    """

    hashes: np.ndarray
    offsets: np.ndarray
    starts: np.ndarray


def fold(text: str) -> str:
    """The text without case. ASCII is left as it is: its case is folded with the bytes."""
    return text if text.isascii() else text.casefold()


def hash_words(texts: Sequence[str]) -> Words:
    """Finds and hashes the words of each text; a text without any has none."""
    encoded = [fold(text).encode("utf-8", "surrogatepass") for text in texts]
    data = b"\n".join(encoded)
    parts = [(start, *_hash_block(data[start:end])) for start, end in _blocks(data)]
    starts = np.concatenate([start + found for start, found, _ in parts] or [_none(np.int64)])
    hashes = np.concatenate([found for _, _, found in parts] or [_none(np.uint64)])
    ends = np.cumsum([len(part) + 1 for part in encoded], dtype=np.int64)
    offsets = np.concatenate([[0], np.searchsorted(starts, ends)])
    return Words(hashes, offsets, starts)


def shingle(words: Words, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of every run of `length` words in each text.

    A text with fewer words is one shingle of all of them. A text with none is one shingle as well,
    of value 0.

    Returns:
        hashes (uint64) and offsets (int64, texts + 1) as in `Words`.
    """
    counts = np.diff(words.offsets)
    kept = np.maximum(counts - length + 1, 1)
    offsets = np.concatenate([[0], np.cumsum(kept)])
    hashes = np.zeros(offsets[-1], np.uint64)
    runs = ngrams(words.hashes, length)
    long = counts >= length
    # Positions in `runs` of all n-grams that do not reach into the next text.
    within = np.repeat(words.offsets[:-1] - offsets[:-1], kept) + np.arange(offsets[-1])
    is_long = np.repeat(long, kept)
    hashes[is_long] = runs[within[is_long]]
    for text in np.flatnonzero(~long & (counts > 0)):
        own = words.hashes[words.offsets[text] : words.offsets[text + 1]]
        hashes[offsets[text]] = ngrams(own, len(own))[0]
    return hashes, offsets


def ngrams(hashes: np.ndarray, length: int) -> np.ndarray:
    """Hashes of all runs of `length` word hashes, across texts; empty where there are too few."""
    count = len(hashes) - length + 1
    if count <= 0:
        return _none(np.uint64)
    total = hashes[:count].copy()
    for place in range(1, length):
        total *= _NGRAM_BASE
        total += hashes[place : place + count]
    return mix(total)


def mix(values: np.ndarray) -> np.ndarray:
    """Spreads every bit over all others (the finaliser of splitmix64, Steele et al. 2014)."""
    values = (values ^ (values >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> _U64(27))) * _U64(0x94D049BB133111EB)
    return values ^ (values >> _U64(31))


def _powers(base: int, count: int) -> np.ndarray:
    powers = np.full(count, base, np.uint64)
    powers[0] = 1
    return np.cumprod(powers, dtype=np.uint64)


def _byte_values() -> np.ndarray:
    """A random value per byte, the same for both cases; 0 for what separates words in ASCII."""
    values = np.random.default_rng(2024).integers(1, 1 << 63, 256, dtype=np.uint64)
    values[ord("A") : ord("Z") + 1] = values[ord("a") : ord("z") + 1]
    values[[byte for byte in range(128) if not chr(byte).isalnum()]] = 0
    return values


_VALUES = _byte_values()
_POWERS = _powers(_BASE, BLOCK_BYTES + 1)
_INVERSES = _powers(pow(_BASE, -1, 1 << 64), BLOCK_BYTES + 1)


def _blocks(data: bytes) -> Iterator[tuple[int, int]]:
    """Stretches of at most `BLOCK_BYTES`, cut between words unless one word fills a block."""
    start = 0
    while start < len(data):
        end = min(start + BLOCK_BYTES, len(data))
        if end < len(data):
            cut = max(data.rfind(b" ", start, end), data.rfind(b"\n", start, end)) + 1
            end = cut if cut > start else end
        yield start, end
        start = end


def _hash_block(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Where the words of a block begin, and their hashes."""
    letters = np.frombuffer(data, np.uint8)
    values = _VALUES[letters]
    if not data.isascii():
        _clear_wide_separators(letters, values)
    is_word = values != 0
    begins = is_word.copy()
    begins[1:] &= ~is_word[:-1]
    if not data.isascii():
        begins |= is_word & (letters >= 0xE3) & (letters <= 0xE9)
    starts = np.flatnonzero(begins)
    # The sum up to a word's start; what separates words adds nothing.
    values *= _POWERS[: len(values)]
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values, out=sums[1:])
    edges = np.append(sums[starts], sums[-1])
    return starts, mix(np.diff(edges) * _INVERSES[starts])


def _clear_wide_separators(letters: np.ndarray, values: np.ndarray) -> None:
    """Sets the values of spaces, dashes, quotes and signs outside ASCII to 0.

    They are U+00A0-U+00BF (after case folding no letters of English are left among them),
    U+2000-U+203F, the mathematical operators with the minus sign, and CJK punctuation.
    """
    leads = np.flatnonzero((letters == 0xC2) | (letters == 0xE2) | (letters == 0xE3))
    lead, second = letters[leads], letters[np.minimum(leads + 1, len(letters) - 1)]
    two = lead == 0xC2
    three = (lead == 0xE2) & ((second == 0x80) | (second == 0x88) | (second == 0x89))
    three |= (lead == 0xE3) & (second == 0x80)
    for places in (leads[two | three], leads[two | three] + 1, leads[three] + 2):
        values[places[places < len(values)]] = 0


def _none(dtype: type) -> np.ndarray:
    return np.empty(0, dtype)
