import math
import os
import socket
import subprocess
import sys

import pytest

from tests.command import ROOT

SAME = """
import copy, sys, tempfile
from pathlib import Path
import torch
from benchmarks import scaling
from benchmarks.step import Engine, choose_data, configuration
processes, steps = int(sys.argv[1]), 5
config = configuration("cnn", False, "cpu", 1, steps)
config["trainer"] |= {"devices": processes, "strategy": "ddp" if processes > 1 else "auto"}
with tempfile.TemporaryDirectory() as folder:
    engine = Engine(config, choose_data("cnn", None)[1], Path(folder))
    twin = copy.deepcopy(engine.module.model)
    loop = scaling.hand_written(twin, engine, config["optimizer"]["lr"])
    class Beside(scaling.L.Callback):
        def on_train_batch_end(self, *_):
            next(loop)
    engine.fit(Beside())
for ours, by_hand in zip(engine.module.model.parameters(), twin.parameters(), strict=True):
    torch.testing.assert_close(ours, by_hand, rtol=1e-4, atol=1e-6)
print("same")
"""


def test_prints_a_table_of_finite_numbers():
    words = ["--rounds", "2", "--steps", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scaling", *words], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
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
def test_both_loops_do_the_same_mathematics(processes):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1", "GROUP_RANK": "0"}
    if processes > 1:
        common |= {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SAME, str(processes)],
            cwd=ROOT,
            env=common | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    for process in started:
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0 and out.endswith("same\n"), error[-2000:]
