"""A technique that is written where it is used: in a script, on standard input, in the cells of a notebook."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from plugins.base import Plugin
from tests.command import variables

ROOT = Path(__file__).parents[2]
CLASS = '''
from functools import partial
import lightning as L
import torch
from lightning_recipes import EMA, SAM, CrossEntropy, Dropout, Plugin, RecipeModule, Stage


class RootPenalty(Plugin):
    """weight · Σ √(|w| + 1)."""

    stage = Stage.PENALTY

    def __init__(self, weight):
        self.weight, self.calls = weight, 0

    def penalty(self, module, batch, outputs):
        total = sum((p.abs() + 1).sqrt().sum() for p in module.model.parameters())
        self.record(module, "sum", total)
        return self.weight * total

    def after_step(self, module, optimizer):
        self.calls += 1

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]
'''
TRAINING = """
def train(epochs, folder, start=None):
    torch.manual_seed(0)
    x = torch.randn(64, 5)
    data = torch.utils.data.TensorDataset(x, (x[:, 0] > 0).long())
    loader = torch.utils.data.DataLoader(data, batch_size=16)
    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    module = RecipeModule(model, CrossEntropy(), partial(torch.optim.Adam, lr=0.1), log_every_n_steps=1)
    own = RootPenalty(0.01)
    trainer = L.Trainer(
        max_epochs=epochs, callbacks=[SAM(), own, EMA(), Dropout(0.5)], accelerator="cpu", enable_progress_bar=False,
        logger=L.pytorch.loggers.CSVLogger(folder, "", ""), enable_model_summary=False, log_every_n_steps=1,
    )
    trainer.fit(module, loader, ckpt_path=start)
    return module, own, trainer.checkpoint_callback.best_model_path
"""
RUN = """
import csv, json
_, first, saved = train(2, "first")
resumed, own, _ = train(4, "resumed", saved)
straight, *_ = train(4, "straight")
weights = [module.state_dict() for module in (resumed, straight)]
with open("resumed/metrics.csv") as file:
    columns = next(csv.reader(file))
print("FOUND", json.dumps({
    "calls": [first.calls, own.calls],
    "same": all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1]),
    "moved": not torch.equal(weights[0]["model.0.weight"], torch.load(saved, weights_only=True)["state_dict"]["model.0.weight"]),
    "kept": sorted(torch.load(saved, weights_only=True)["callbacks"]),
    "columns": columns, "order": [type(plugin).__name__ for plugin in resumed.plugins],
}))
"""
CELLS = [CLASS, TRAINING, RUN]
AS_CELLS = (
    "import json, sys\n"
    "names = sys.modules['__main__'].__dict__\n"
    "names.pop('__file__', None)\n"
    "for number, cell in enumerate(json.load(open('cells.json'))):\n"
    "    exec(compile(cell, f'<cell {number}>', 'exec'), names)\n"
)
IN_IPYTHON = (
    "import json\n"
    "from IPython.core.interactiveshell import InteractiveShell\n"
    "shell = InteractiveShell.instance()\n"
    "for cell in json.load(open('cells.json')):\n"
    "    shell.run_cell(cell, store_history=True).raise_error()\n"
)


@pytest.mark.parametrize("way", ["script", "stdin", "cells", "ipython"])
@pytest.mark.slow
def test_a_class_written_where_it_is_used(tmp_path, way):
    if way == "ipython":
        pytest.importorskip("IPython")
    text = {"cells": AS_CELLS, "ipython": IN_IPYTHON}.get(way, "\n".join(CELLS))
    (tmp_path / "script.py").write_text(text)
    (tmp_path / "cells.json").write_text(json.dumps(CELLS))
    env = variables(PYTHONPATH=f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", IPYTHONDIR=str(tmp_path / "ipython"))
    words, given = ([], text) if way == "stdin" else (["script.py"], None)
    done = subprocess.run([sys.executable, *words], input=given, cwd=tmp_path, env=env, capture_output=True, text=True)
    line = next((line for line in done.stdout.splitlines() if line.startswith("FOUND ")), None)
    assert done.returncode == 0 and line, done.stdout + done.stderr
    found = json.loads(line.removeprefix("FOUND "))
    assert found["calls"] == [8, 16] and found["same"] and found["moved"]
    assert {"averaging/ema", "root_penalty"} <= set(found["kept"])
    assert "root_penalty/sum" in found["columns"]
    assert found["order"] == ["Dropout", "RootPenalty", "SAM", "EMA"]


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("RootPenalty", "root_penalty"),
        ("L1", "l1"),
        ("SAM", "sam"),
        ("SAMPlus", "sam_plus"),
        ("MyL1Norm", "my_l1_norm"),
        ("EMA2", "ema2"),
    ],
)
@pytest.mark.parametrize("module", ["__main__", "techniques"])
def test_the_name_of_such_a_class(module, name, option):
    plugin = type(name, (Plugin,), {"__module__": module})()
    assert (plugin.option, plugin.group, plugin.state_key) == (option, "", option)
