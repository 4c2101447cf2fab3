import math
import subprocess
import sys

import pytest

from benchmarks.start import ROOT, TRAIN, until_end, until_first_step


@pytest.mark.slow
def test_prints_a_table_of_finite_seconds():
    command = [sys.executable, "-m", "benchmarks.start", "--rounds", "1", "model=linear"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    head, columns, *rows = done.stdout.splitlines()
    assert head.startswith("1 rounds") and columns.split() == ["seconds", "least", "most"]
    assert [row.rsplit(maxsplit=3)[0] for row in rows] == [
        "python train.py --help",
        "python train.py optimizer=adm",
        "python train.py optimizer.lr=abc",
        "python train.py, first step",
        "import torch, lightning",
    ]
    for row in rows:
        assert all(math.isfinite(float(cell)) and float(cell) > 0 for cell in row.split()[-3:])


def test_what_does_not_start_is_told():
    with pytest.raises(RuntimeError, match="ended with 0, not 2"):
        until_end([*TRAIN, "--help"], 2)
    with pytest.raises(RuntimeError, match="before its first step.*optimizer"):
        until_first_step(["optimizer=adm"])
