import math
import subprocess
import sys

import pytest

from benchmarks.sweep import ROOT, WAYS, Sweep, below, beside


@pytest.mark.slow
def test_prints_a_table_of_finite_seconds():
    command = [sys.executable, "-m", "benchmarks.sweep", "--rounds", "1", "--jobs", "2", "--loggers", "csv"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    head, columns, *rows = done.stdout.splitlines()
    assert head.startswith("1 rounds of 2 jobs") and columns.split()[:2] == ["beside", "training"]
    assert [row.split(",")[0] for row in rows] == ["warm", "fresh", "basic"]
    for row in rows:
        *seconds, memory, unit = row.split()[2:]
        assert len(seconds) == 4 and all(math.isfinite(float(cell)) and float(cell) > 0 for cell in seconds)
        assert 20 < float(memory) < 20_000 and unit == "MB"


def test_the_time_between_two_ends_less_what_was_training():
    assert beside([(5.0, 1.0), (7.0, 0.5), (8.0, 0.25)]) == [1.5, 0.75]


def test_processes_below_one(tmp_path):
    inner = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", inner], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "1\n"
        assert below([process.pid], 0) == [process.pid]
        assert len(below([process.pid], 1)) == 1 and below([process.pid], 2) == []
        process.communicate("\n")
    assert set(WAYS) == {"warm", "fresh", "basic"}


def test_what_does_not_start_is_told(tmp_path):
    with pytest.raises(RuntimeError, match="ended with 3, 0 results: no"):
        Sweep(tmp_path, 1, [sys.executable, "-c", "import sys; print('no', file=sys.stderr); sys.exit(3)"], 0)
