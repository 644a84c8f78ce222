"""Parts of a checkpoint make a whole, or the rank that spoils it is named."""

import pytest

from megatron_biollm.rehearsal.checkpoint_plan import Shard, bytes_written, check_whole
from megatron_biollm.rehearsal.rules import check_shapes
from megatron_biollm.rehearsal.saves import rank_content
from tests.rehearsal.runs import small_run


def shard(offset, size, main=True, shape=(8, 4), key="weight"):
    return Shard(key, shape, offset, size, main, 2 * size[0] * size[1])


def halves():
    return {0: [shard((0, 0), (4, 4))], 1: [shard((4, 0), (4, 4))]}


@pytest.mark.parametrize(
    "layout",
    [
        {"world_size": 2},
        {"world_size": 4, "tp": 2, "sequence_parallel": True},
        {"world_size": 4, "pp": 2, "vpp": 2},
        {"world_size": 4, "cp": 2},
    ],
)
def test_all_ranks_together_write_every_element_once(layout):
    run = small_run(**layout)
    ranks = [rank_content(run, rank) for rank in range(run.world_size)]
    for name in ranks[0].shards:
        assert check_whole({rank: own.shards[name] for rank, own in enumerate(ranks)}) == []
    without = {rank: own.shards["reshardable"] for rank, own in enumerate(ranks[:-1])}
    assert check_whole(without), "a whole world without its last rank is not complete"
    shapes = {rank: own.shapes for rank, own in enumerate(ranks)}
    assert list(check_shapes(shapes, run.parallel, run.world_size)) == []


def test_parts_that_fill_a_tensor_are_fine():
    assert check_whole(halves()) == []


def test_copies_are_not_written_twice():
    shards = halves() | {2: [shard((0, 0), (4, 4), main=False)]}
    assert check_whole(shards) == []


def test_two_ranks_that_write_the_same_element_are_named():
    shards = halves()
    shards[1] = [shard((3, 0), (5, 4))]
    (broken,) = check_whole(shards)
    assert broken.rank == 0
    assert broken.found == "it writes [0:4, 0:4] of weight, and rank 1 writes [3:8, 0:4]"
    assert "one rank alone" in broken.rule


def test_a_hole_names_the_rank_that_holds_it_as_a_copy():
    shards = halves()
    shards[1] = [shard((4, 0), (4, 4), main=False)]
    (broken,) = check_whole(shards)
    assert broken.rank == 1
    assert (
        "16 elements of weight [8, 4] are written by no rank, the first at [4, 0]" in broken.found
    )
    assert "replica_id" in broken.remedy


def test_a_hole_that_nobody_holds_names_the_rank_before_it():
    shards = {0: [shard((0, 0), (4, 4))], 1: [shard((6, 0), (2, 4))]}
    (broken,) = check_whole(shards)
    assert broken.rank == 0 and "no rank holds it" in broken.found


def test_a_part_outside_of_its_tensor_is_named():
    shards = halves() | {1: [shard((6, 0), (4, 4))]}
    (broken,) = check_whole(shards)
    assert broken.rank == 1 and "[6:10, 0:4], outside of [8, 4]" in broken.found


def test_ranks_that_disagree_on_a_shape_are_named():
    shards = halves() | {1: [shard((4, 0), (4, 4), shape=(9, 4))]}
    (broken,) = check_whole(shards)
    assert broken.rank == 1 and "[8, 4] on rank 0" in broken.found


def test_equal_copies_are_shared_out_over_their_group():
    parts = [shard((row, 0), (1, 4), shape=(4, 4), key="x") for row in range(4)]
    copies = [part._replace(main=False) for part in parts]
    shards = {0: parts, 1: copies}
    assert bytes_written(shards, [[0, 1]], shared=True) == {0: 16, 1: 16}
    assert bytes_written(shards, [[0, 1]], shared=False) == {0: 32, 1: 0}
