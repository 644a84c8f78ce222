import random

import pytest

from megatron_biollm.data.jumps import JumpingStream, merge_ranges, position_of, positions_of
from megatron_biollm.data.sampler import micro_batches


@pytest.mark.parametrize(
    ("ranges", "merged"),
    [
        ([], []),
        ([[5, 5]], []),
        ([[4, 6], [1, 2]], [[1, 2], [4, 6]]),
        ([[1, 4], [3, 6], [6, 7]], [[1, 7]]),
        ([(1, 9), (2, 3)], [[1, 9]]),
    ],
)
def test_ranges_are_sorted_and_joined(ranges, merged):
    assert merge_ranges(ranges) == merged


@pytest.mark.parametrize("seed", range(20))
def test_what_is_left_out_and_what_is_read_are_the_whole_stream(seed):
    draw = random.Random(seed)
    jumped = merge_ranges([start, start + draw.randrange(9)] for start in draw.sample(range(60), 5))
    left_out = {position for first, end in jumped for position in range(first, end)}
    expected = [position for position in range(120) if position not in left_out]
    assert [position_of(i, jumped) for i in range(len(expected))] == expected


@pytest.mark.parametrize("seed", range(20))
def test_the_positions_of_a_step_are_those_of_its_samples(seed):
    draw = random.Random(seed)
    jumped = merge_ranges([start, start + draw.randrange(9)] for start in draw.sample(range(60), 5))
    consumed, count = draw.randrange(40), draw.randrange(1, 30)
    ranges = positions_of(consumed, count, jumped)
    assert ranges == merge_ranges(ranges)
    assert [position for first, end in ranges for position in range(first, end)] == [
        position_of(i, jumped) for i in range(consumed, consumed + count)
    ]


class Numbers:
    def __getitem__(self, index):
        return {"number": index}


@pytest.mark.parametrize("size", [1, 2])
def test_all_ranks_together_read_around_a_jump(size):
    stream = JumpingStream(Numbers(), [[5, 9], [2, 3]])
    ranks = [micro_batches(stream, 1, 2, rank, size) for rank in range(size)]
    read = [n for _ in range(4 // size) for rank in ranks for n in next(rank)["number"].tolist()]
    assert read == [1, 3, 4, 9, 10, 11, 12, 13]
