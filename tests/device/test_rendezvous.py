"""The ranks of one start agree on a part of the store that no other start has used."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch

from megatron_biollm.device.rendezvous import of_this_start

SIZE = 3


@pytest.fixture
def server():
    return torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def join(server, rank, seconds=30.0):
    """As a process of its own would; gives what it then sees of what rank 0 has set."""
    client = torch.distributed.TCPStore("127.0.0.1", server.port, is_master=False)
    store = of_this_start(client, rank, SIZE, timedelta(seconds=seconds))
    if rank == 0:
        store.set("address", threading.current_thread().name)
    return store.get("address").decode()


def start(server, ranks=range(SIZE), seconds=30.0):
    with ThreadPoolExecutor(SIZE) as pool:
        futures = [pool.submit(join, server, rank, seconds) for rank in ranks]
        return [future.exception() or future.result() for future in futures]


def test_all_ranks_see_the_same_and_a_second_start_does_not_see_the_first(server):
    seen = [start(server) for _ in range(3)]
    assert [len(set(addresses)) for addresses in seen] == [1, 1, 1]
    assert len({addresses[0] for addresses in seen}) == 3


def test_a_start_that_lost_a_rank_does_not_disturb_the_next(server):
    [zero, one] = start(server, ranks=[0, 1], seconds=0.5)
    assert isinstance(zero, TimeoutError) and "no answer from ranks [2]" in str(zero)
    assert isinstance(one, TimeoutError)
    # A rank that had come, and died before it agreed.
    server.set("word/2", "of-a-dead-rank")
    [zero, one] = start(server, ranks=[0, 1], seconds=0.5)
    assert "no answer from ranks [2]" in str(zero)
    assert json.loads(server.get("words"))[2] == "of-a-dead-rank"
    assert len(set(start(server))) == 1
