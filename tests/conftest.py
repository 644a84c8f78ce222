import pytest

from megatron_biollm.log import close_logging
from tests.distributed import World


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
