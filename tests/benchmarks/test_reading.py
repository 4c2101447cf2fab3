"""What the benchmark of files compares is the same on both sides, and its tables are those of finite numbers."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from benchmarks.reading import FEATURES, FORMS, most_memory, rows_of, source_of
from tests.command import ROOT

ROWS = 600


@pytest.mark.slow
def test_prints_tables_of_finite_numbers():
    words = ["--size", "0.01", "--steps", "5", "--rounds", "2", "--images", "300", "--workers", "0", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.reading", *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    rows = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in done.stdout.splitlines()]
    names = [row[0] for row in rows]
    assert "2,441 rows of 1024 floats, batch 128, mlp, 2 rounds of 5 steps, torch" in done.stdout
    for form in ("npy folder", "npz file", *(["Arrow"] if "Arrow is left out" not in done.stdout else [])):
        own, whole, *numbers, _ = rows[names.index(form)][1:]
        memory = [float(size.removesuffix(" GB")) for size in (own, whole)]
        assert 0.05 < memory[0] < memory[1] < 3
        assert all(math.isfinite(number) and number > 0 for number in (float(cell.replace(",", "")) for cell in numbers))
    for workers in (0, 1):
        numbers = [float(cell.replace(",", "")) for cell in rows[names.index(f"{workers} workers")][1:4]]
        assert all(math.isfinite(number) and number > 0 for number in numbers)


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_hold_the_same_rows(tmp_path, monkeypatch, form):
    if form == "Arrow":
        pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = tmp_path / ("own.npz" if form == "npz file" else "own")
    FORMS[form][0](path, ROWS)
    x, targets = source_of(form, path).fetch(torch.arange(ROWS))
    expected, y = rows_of(0, ROWS)
    assert x.shape == (ROWS, FEATURES) and np.array_equal(x, expected) and np.array_equal(targets[""], y)


@pytest.mark.slow
def test_the_memory_of_a_process_is_that_of_what_it_loads(tmp_path):
    FORMS["npy folder"][0](tmp_path / "own", 40_000)  # 164 MB
    whole, own = most_memory("npy folder", tmp_path / "own", 2)
    assert 1e8 < own < whole < 3e9
