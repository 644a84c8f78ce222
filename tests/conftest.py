import pytest

from megatron_biollm.log import close_logging


@pytest.fixture(autouse=True)
def _logging_ends_with_the_test():
    """A test that opens a run's log must not leave its file and its console to the next one."""
    yield
    close_logging()
