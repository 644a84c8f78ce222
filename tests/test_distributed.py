import multiprocessing
import os
import time
from pathlib import Path

import pytest
import torch

from tests.distributed import WorkerError, World


def rank_sum():
    total = torch.tensor([float(torch.distributed.get_rank())])
    torch.distributed.all_reduce(total)
    return torch.distributed.get_rank(), torch.distributed.get_world_size(), total.item()


def fail_on(rank):
    if torch.distributed.get_rank() == rank:
        raise ZeroDivisionError("a rank's own words")
    torch.distributed.barrier()


def sleep_on(rank):
    if torch.distributed.get_rank() == rank:
        time.sleep(60)


def die_on(rank):
    if torch.distributed.get_rank() == rank:
        os._exit(1)
    torch.distributed.barrier()


def start_a_process():
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    child.start()
    return child.pid


def not_joined():
    return torch.distributed.is_initialized(), os.environ["RANK"], torch.cuda.Stream.__module__


@pytest.mark.parametrize("size", [2, 8, 1, 4])
def test_every_case_has_a_fresh_world_of_its_size(world, size):
    expected = [(rank, size, sum(range(size))) for rank in range(size)]
    assert world.run(size, rank_sum) == expected


def test_a_function_can_do_all_the_set_up_itself(world):
    assert world.run(2, not_joined, joined=False) == [
        (False, "0", "torch.cuda.streams"),
        (False, "1", "torch.cuda.streams"),
    ]


@pytest.mark.parametrize("rank", [0, 1])
def test_an_exception_of_a_rank_fails_the_test_with_its_traceback(world, rank):
    with pytest.raises(WorkerError, match=rf"(?s)fail_on.*rank {rank}.*a rank's own words"):
        world.run(2, fail_on, rank)
    assert len(world.run(2, rank_sum)) == 2


def test_processes_that_a_case_leaves_behind_end_with_it(world):
    (child,) = world.run(1, start_a_process)
    world.run(1, rank_sum)
    assert not Path(f"/proc/{child}").exists()


def test_a_hung_or_dead_rank_is_named_and_replaced():
    world = World()
    try:
        world.run(2, rank_sum)
        with pytest.raises(WorkerError, match=r"sleep_on\(1,\).*no answer from ranks \[(0, )?1\]"):
            world.run(2, sleep_on, 1, timeout=3)
        with pytest.raises(WorkerError, match=r"(?s)die_on\(1,\).*rank 1:\nthe process died"):
            world.run(2, die_on, 1)
        assert len(world.run(3, rank_sum)) == 3
    finally:
        world.close()
