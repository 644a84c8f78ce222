import numpy as np
import pytest
from megatron.core.datasets.gpt_dataset import _build_document_index, _build_shuffle_index
from megatron.core.datasets.helpers import build_sample_idx

from megatron_biollm.data import sample_index as module
from megatron_biollm.data.epoch_index import EpochKey
from megatron_biollm.data.sample_index import compute_index, sample_index, shuffle_dtype


def drawn(longest: int, documents: int = 300) -> np.ndarray:
    return np.random.default_rng(0).integers(0, longest + 1, documents).astype(np.int32)


@pytest.fixture(params=[1, 7, 1 << 17])
def piece(request, monkeypatch):
    monkeypatch.setattr(module, "_PIECE", request.param)
    monkeypatch.setattr(module, "_CACHED", request.param)


@pytest.mark.parametrize("longest", [3, 40, 500])
@pytest.mark.parametrize("seq_length", [1, 7, 64])
def test_samples_begin_where_the_compiled_helper_begins_them(piece, longest, seq_length):
    lengths = drawn(longest)
    documents = np.random.default_rng(1).permutation(300).astype(np.int32)[:250]
    tokens = int(lengths[documents].sum())
    ours = sample_index(lengths, documents, seq_length)
    core = build_sample_idx(lengths, documents, seq_length, 1, tokens, True, True)
    assert ours.dtype == core.dtype and np.array_equal(ours, core)


def test_empty_sequences_are_passed_over_as_the_helper_does(piece):
    lengths = np.array([0, 5, 0, 0, 11, 3, 0], np.int32)
    documents = np.arange(7, dtype=np.int32)
    core = build_sample_idx(lengths, documents, 4, 1, int(lengths.sum()), True, True)
    assert np.array_equal(sample_index(lengths, documents, 4), core)


@pytest.mark.parametrize(("seed", "first", "end"), [(5, 3, 250), (0, 0, 300), (2**32 - 1, 7, 20)])
def test_both_shuffles_are_cores(piece, seed, first, end):
    lengths, random = drawn(40) + 1, np.random.RandomState(seed)
    ours = compute_index(lengths, EpochKey("x", first, end, seq_length=9, seed=seed, epoch=0))
    documents = _build_document_index(np.arange(first, end, dtype=np.int32), 1, random, False)
    count = len(ours.shuffle)
    shuffle = _build_shuffle_index(count, count, random)
    assert ours.documents.dtype == documents.dtype and np.array_equal(ours.documents, documents)
    assert ours.shuffle.dtype == shuffle.dtype and np.array_equal(ours.shuffle, shuffle)


def test_a_generator_that_was_used_before_changes_nothing():
    lengths, key = drawn(40) + 1, EpochKey("x", 3, 50, seq_length=9, seed=5, epoch=2)
    used = np.random.RandomState(9)
    used.shuffle(np.arange(77))
    fresh, again = compute_index(lengths, key), compute_index(lengths, key, used)
    for name in ("documents", "samples", "shuffle"):
        assert np.array_equal(getattr(fresh, name), getattr(again, name))


def test_numbers_of_samples_grow_wider_where_cores_do():
    assert [shuffle_dtype(n) for n in (0, 2**32 - 3)] == [np.uint32] * 2
    assert shuffle_dtype(2**32 - 2) == np.int64
