import signal
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs, and all they start, ignore Ctrl-C


@pytest.fixture(autouse=True)
def _one_thread():
    """Tests run side by side; the result of a run does not depend on the number of threads here."""
    torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter):
    """Say how many pairs of techniques trained, and which were refused for what reason."""
    counts = [
        value
        for report in terminalreporter.stats.get("passed", [])
        for name, value in report.user_properties
        if name == "pairs"
    ]
    if counts:
        refused = [line for count in counts for line in count["refused"]]
        trained = sum(count["trained"] for count in counts)
        terminalreporter.write_line(f"pairs of techniques: {trained} trained, {len(refused)} refused")
        for line in refused:
            terminalreporter.write_line(f"  {line}")
