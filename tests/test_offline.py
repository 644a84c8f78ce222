import os
import socket

import pytest

from tests.distributed import WorkerError
from tests.offline import NetworkForbidden

ELSEWHERE = "192.0.2.1"  # of the range that is reserved for documentation


def call_elsewhere():
    with socket.socket() as caller:
        caller.connect((ELSEWHERE, 80))


def test_another_machine_is_out_of_reach(network_tries):
    with pytest.raises(NetworkForbidden, match="a connection to .*192.0.2.1"):
        call_elsewhere()
    with pytest.raises(NetworkForbidden, match="the address of example.org"):
        socket.getaddrinfo("example.org", 443)
    assert len(network_tries) == 2
    network_tries.clear()  # these were meant


def test_it_is_for_the_worker_processes_too(world):
    with pytest.raises(WorkerError, match="NetworkForbidden"):
        world.run(1, call_elsewhere, joined=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_can_be_reached(host):
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection((host, server.getsockname()[1]), timeout=10),
    ):
        pass


def test_the_libraries_of_hugging_face_know():
    import huggingface_hub.constants

    assert huggingface_hub.constants.HF_HUB_OFFLINE and os.environ["HF_DATASETS_OFFLINE"] == "1"
