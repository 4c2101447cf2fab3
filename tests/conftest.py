import functools
import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities import registry

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests import shapes

shapes.install()
os.fsync = lambda descriptor: None  # no test cuts the power, and waiting for the disk is a tenth of all
registry.entry_points = functools.cache(registry.entry_points)  # looked through for each Trainer, which takes as long as a step
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs, and all they start, ignore Ctrl-C


@pytest.fixture(autouse=True)
def _one_thread():
    """Tests run side by side; the result of a run does not depend on the number of threads here."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _nothing_runs_on(monkeypatch):
    """End the commands that a test has started and, because it failed, not waited for."""
    started = []

    class Remembered(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Remembered)
    yield
    forked = sys.modules.get("tests.forked")  # loaded by a test module, once the libraries have set their variables
    for process in started:
        ours = isinstance(process.args, list) and process.args[0] == sys.executable
        if ours and process.poll() is None and not (forked and forked.is_server(process)):
            leads = os.getpgid(process.pid) == process.pid
            (os.killpg if leads else os.kill)(process.pid, signal.SIGKILL)
            process.wait()


def pytest_collection_modifyitems(items):
    """Those in tests/ itself first: they take longest, and at the end one process would wait for another that has got them."""
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent)


def pytest_collection_finish():
    """Libraries and tests stay: looking through them for garbage takes half a second, again and again."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter):
    """Say how many pairs of techniques were built, and in how many runs they were trained."""
    properties = [pair for report in terminalreporter.stats.get("passed", []) for pair in report.user_properties]
    counts = {
        word: sum(value for name, value in properties if name == f"sweep: {word}") for word in ("pairs", "refused", "runs")
    }
    if any(counts.values()):
        terminalreporter.write_line(
            f"pairs of techniques: {counts['pairs']}, {counts['refused']} of them refused; trained in {counts['runs']} runs"
        )
