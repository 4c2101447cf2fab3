import signal

import pytest

from tests.cluster.slurm import Slurm, unavailable

LIMIT = 300  # seconds for a test


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/cluster/" in item.path.as_posix():
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A Slurm with two nodes."""
    if reason := unavailable():
        pytest.skip(reason)
    cluster = Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(autouse=True)
def _time_limit(slurm):
    """A rank that waits for another one waits for ever."""

    def end(number, frame):
        pytest.fail(f"not done after {LIMIT} s")

    previous = signal.signal(signal.SIGALRM, end)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)
