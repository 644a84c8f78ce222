import numpy as np
import pytest

from megatron_biollm.finetune.packing import best_fit, epoch_order, one_each

CAPACITY = 128


@pytest.fixture(params=range(3))
def lengths(request):
    return np.random.default_rng(request.param).integers(1, CAPACITY + 1, 400)


def rows_of(lengths, packs, seed=0, epoch=0):
    return [row.tolist() for row in epoch_order(packs, lengths, seed, epoch)]


def test_every_item_is_in_one_row_and_no_row_is_overfull(lengths):
    rows = rows_of(lengths, best_fit(lengths, CAPACITY))
    assert sorted(item for row in rows for item in row) == list(range(len(lengths)))
    assert max(lengths[row].sum() for row in rows) <= CAPACITY


def plain_best_fit(lengths, capacity):
    """The rule as it is told, row by row."""
    room = []
    for length in sorted(lengths.tolist(), reverse=True):
        fitting = [left for left in room if left >= length]
        if fitting:
            room[room.index(min(fitting))] -= length
        else:
            room.append(capacity - length)
    return sorted(room)


def test_the_rows_are_those_of_best_fit_decreasing(lengths):
    rows = rows_of(lengths, best_fit(lengths, CAPACITY))
    found = sorted(CAPACITY - int(lengths[row].sum()) for row in rows)
    assert found == plain_best_fit(lengths, CAPACITY)


def test_few_rows_more_than_needed(lengths):
    assert len(best_fit(lengths, CAPACITY)) <= 11 / 9 * -(-lengths.sum() // CAPACITY) + 4


def test_an_epoch_follows_from_the_seed_and_its_number_alone(lengths):
    packs = best_fit(lengths, CAPACITY)
    first = rows_of(lengths, packs, seed=1, epoch=0)
    assert rows_of(lengths, packs, seed=1, epoch=0) == first
    assert rows_of(lengths, packs, seed=1, epoch=1) != first
    assert rows_of(lengths, packs, seed=2, epoch=0) != first


def test_items_of_equal_length_meet_others_in_the_next_epoch():
    lengths = np.full(40, 60)
    packs = best_fit(lengths, CAPACITY)
    pairs = [{frozenset(row) for row in rows_of(lengths, packs, epoch=e)} for e in range(2)]
    assert len(pairs[0] & pairs[1]) < 5


def test_one_item_a_row_without_packing(lengths):
    rows = rows_of(lengths, one_each(len(lengths)))
    assert all(len(row) == 1 for row in rows) and len(rows) == len(lengths)


def test_an_item_as_long_as_a_row_and_an_empty_one():
    rows = rows_of(np.array([CAPACITY, 0]), best_fit(np.array([CAPACITY, 0]), CAPACITY))
    assert sorted(item for row in rows for item in row) == [0, 1]
