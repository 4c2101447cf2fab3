from functools import partial

import pytest
import torch
from torch import nn

from plugins.base import Batch, Setting, Task, derive_seed
from recipes.engine.module import RecipeModule


@pytest.fixture
def build():
    """The engine's module with some plugins, before its first step."""

    def build(*plugins, shape=(3, 8, 10), tasks=None, seed=0):
        module = RecipeModule(nn.Flatten(), nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1), seed=seed)
        tasks = tasks or [Task("", "classification", 5)]
        module.build(plugins, Setting(shape, tuple(tasks), seed), devices=1)
        return module

    return build


@pytest.fixture
def batch():
    """Random images with random labels."""

    def batch(samples=64, shape=(3, 8, 10), classes=5):
        labels = torch.randint(classes, (samples,))
        return Batch(torch.rand(samples, *shape), {"": labels}, {"": labels})

    return batch


@pytest.fixture
def drawn():
    """The generator of an option in the first step, with seed 0."""
    return lambda option: torch.Generator().manual_seed(derive_seed(0, option, 0, 0))
