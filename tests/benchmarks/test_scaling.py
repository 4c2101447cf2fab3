import copy
import math
import subprocess
import sys

import lightning as L
import pytest
import torch

from benchmarks import scaling
from benchmarks.step import Engine, choose_data, configuration
from tests.command import LIMIT, ROOT
from tests.ranks import on_ranks


def differ(processes, folder):
    """Train side by side with a twin by hand; the parameters that differ in the end."""
    config = configuration("cnn", False, "cpu", 1, 5)
    config["trainer"] |= {"devices": processes, "strategy": "ddp" if processes > 1 else "auto"}
    engine = Engine(config, choose_data("cnn", None)[1], folder)
    twin = copy.deepcopy(engine.module.model)
    loop = scaling.hand_written(twin, engine, config["optimizer"]["lr"])

    class Beside(L.Callback):
        def on_train_batch_end(self, *_):
            next(loop)

    engine.fit(Beside())
    pairs = zip(engine.module.model.named_parameters(), twin.parameters(), strict=True)
    return [name for (name, ours), by_hand in pairs if not torch.allclose(ours, by_hand, rtol=1e-4, atol=1e-6)]


@pytest.mark.slow
def test_prints_a_table_of_finite_numbers():
    words = ["--rounds", "2", "--steps", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scaling", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    head, _, *rows = done.stdout.splitlines()
    assert head.startswith("torch ") and len(rows) == 2
    for processes, row in zip("12", rows, strict=True):
        cells = [cell.strip() for cell in row.split("  ") if cell.strip()]
        assert cells[:3] == ["cnn, batch 128", processes, "2 × 1"]
        assert all(math.isfinite(float(cell)) and float(cell) > 0 for cell in cells[3:6])
    *gradients, agreement = (int(number) for number in cells[-1].split(" + "))
    assert sum(gradients) == 421_642 and agreement == 1  # a number for each parameter, and one more


@pytest.mark.parametrize("processes", [1, 2])
def test_both_loops_do_the_same_mathematics(tmp_path, processes):
    assert on_ranks(processes, differ, processes, tmp_path) == [[]] * processes
