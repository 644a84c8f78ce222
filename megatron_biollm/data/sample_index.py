"""The order of one epoch as core's GPTDataset computes it, a piece at a time.

Neither torch nor megatron-core is needed, so that an index is built while they would still be
imported, and beside the shuffled documents of one corpus it takes a few megabytes.
"""

from typing import Optional

import numpy as np

from megatron_biollm.data.epoch_index import EpochIndex, EpochKey

_PIECE = 1 << 17  # documents whose lengths are summed at a time
_CACHED = 1 << 18  # numbers that a core's cache holds


def compute_index(
    sequence_lengths: np.ndarray, key: EpochKey, random: Optional[np.random.RandomState] = None
) -> EpochIndex:
    """The index core's GPTDataset builds for one epoch with the seed of `key`.

    sequence_lengths: int32, in tokens, of the whole corpus. random: is seeded anew; a new one
    takes as long as shuffling 10,000 documents.
    """
    random = random or np.random.RandomState()
    random.seed(key.random_seed())
    documents = _shuffled(key.first, key.end, np.dtype(np.int32), random)
    samples = sample_index(sequence_lengths, documents, key.seq_length)
    count = len(samples) - 1
    return EpochIndex(documents, samples, _shuffled(0, count, shuffle_dtype(count), random))


def sample_index(
    sequence_lengths: np.ndarray, documents: np.ndarray, seq_length: int
) -> np.ndarray:
    """Where each sample begins, as core's compiled helper finds it; int32 [samples + 1, 2].

    Sample k begins at token k * seq_length of the shuffled documents, and shares one token with
    the sample before it: the label of that one's last token.
    """
    lengths = sequence_lengths
    if len(lengths) <= _CACHED:
        # A .idx has them at odd places, where a gather takes twice as long; but many are waited
        # for in any case, and a copy of those would be held.
        lengths = np.require(lengths, requirements="A")
    pieces, done, before = [], 0, 0
    for first in range(0, len(documents), _PIECE):
        taken = lengths[documents[first : first + _PIECE]]
        ends = np.cumsum(taken, dtype=np.int64)
        ends += before
        before = int(ends[-1])
        starts = np.arange(done, (before - 1) // seq_length + 1, dtype=np.int64) * seq_length
        places = np.searchsorted(ends, starts, side="right")
        piece = np.empty((len(starts), 2), np.int32)
        piece[:, 0], piece[:, 1] = places + first, starts - (ends[places] - taken[places])
        pieces.append(piece)
        done += len(starts)
    index = np.concatenate(pieces)
    index[0] = 0  # the helper begins at the first document even if it is empty
    return index


def _shuffled(first: int, end: int, dtype: np.dtype, random: np.random.RandomState) -> np.ndarray:
    # NumPy swaps 8 bytes faster than 4, as long as a core's cache holds them all.
    wide = np.dtype(np.int64) if end - first <= _CACHED else dtype
    numbers = np.arange(first, end, dtype=wide)
    random.shuffle(numbers)
    return numbers.astype(dtype, copy=False)


def shuffle_dtype(samples: int) -> np.dtype:
    """Core's choice for the numbers of so many samples."""
    return np.dtype(np.uint32 if samples < np.iinfo(np.uint32).max - 1 else np.int64)
