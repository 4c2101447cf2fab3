import signal
import subprocess

import pytest

from tests.cluster.gates import Gates
from tests.cluster.slurm import Slurm, unavailable
from tests.command import arguments, variables

LIMIT = 600  # seconds for a test


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
    """A rank that waits for another one waits for ever; what a failed test has left in the queue disturbs no other."""

    def end(number, frame):
        pytest.fail(f"not done after {LIMIT} s")

    previous = signal.signal(signal.SIGALRM, end)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)
    slurm.clear()


@pytest.fixture
def gates(tmp_path):
    """What holds the runs of a test."""
    folder = tmp_path / "gates"
    folder.mkdir()
    return Gates(folder)


@pytest.fixture
def start(slurm, gates, tmp_path):
    """Starts `python train.py WORDS`; its output goes to a file."""
    started = []

    def start(*words, output):
        with open(output, "w") as file:
            process = subprocess.Popen(
                arguments("train.py", *words),
                cwd=tmp_path,
                env=variables(**slurm.environment, **gates.environment),
                stdout=file,
                stderr=file,
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # the tests themselves may run under nohup
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
