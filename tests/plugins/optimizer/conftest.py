from dataclasses import fields
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from recipes.engine.groups import GroupRules

OPTIONS = Path(__file__).parents[3] / "conf" / "optimizer"


class Option:
    """An option as its file defines it, run on a gradient that is given as a function of weights and step."""

    def __init__(self, name, **changed):
        values = yaml.safe_load((OPTIONS / f"{name}.yaml").read_text()) | changed
        module, _, kind = values.pop("_target_").rpartition(".")
        rules = {each.name: values.pop(each.name) for each in fields(GroupRules)}
        assert rules == {"no_decay": [], "layer_decay": 1.0, "rates": None}  # nothing is treated apart unless it is asked for
        self.kind, self.values = getattr(import_module(module), kind), values

    def __getattr__(self, name):
        return self.values[name]

    def run(self, start, gradient, steps):
        """The weights after each step."""
        weights = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
        optimizer = self.kind([weights], **self.values)
        history = []
        for step in range(steps):
            weights.grad = torch.tensor(gradient(weights.detach().numpy().copy(), step))
            optimizer.step()
            history.append(weights.detach().numpy().copy())
        return np.stack(history)


@pytest.fixture
def option():
    return Option


@pytest.fixture
def start():
    return np.random.default_rng().normal(size=7)


@pytest.fixture
def gradients():
    """Random gradients of 30 steps."""
    return np.random.default_rng().normal(size=(30, 7))
