import pytest

from megatron_biollm.log import close_logging
from tests.distributed import World
from tests.offline import forbid_network

TRIES = pytest.StashKey[list[str]]()


def pytest_configure(config):
    config.stash[TRIES] = forbid_network()


@pytest.fixture
def network_tries(pytestconfig):
    """What was tried on the network since the session has begun; nothing, but for its own tests."""
    return pytestconfig.stash[TRIES]


@pytest.fixture(autouse=True)
def _no_network(network_tries):
    """Also where a library swallows the refusal and goes on without what it asked for."""
    yield
    tries, network_tries[:] = list(network_tries), []
    assert not tries, f"this test wanted a network: {tries}"


@pytest.fixture(scope="session")
def world():
    """Worker processes; `world.run(4, function, *args)` calls a function on a world of four."""
    world = World()
    yield world
    world.close()


@pytest.fixture(autouse=True)
def _logging_ends_with_the_test():
    """A test that opens a run's log must not leave its file and its console to the next one."""
    yield
    close_logging()
